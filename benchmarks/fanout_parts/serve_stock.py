"""The stock recipe on the stock Daphne, with a publisher in its process.

python -m fanout_parts.serve_stock PORT TOKENS          serve
python -m fanout_parts.serve_stock prepare              make the database and print a signed-in person's session
"""

import asyncio
import json
import os
import sys
from typing import Any

from fanout_parts.marks import EVENT_BYTES, MARK_BYTES, mark
from fanout_parts.publisher import Publisher

os.environ["DJANGO_SETTINGS_MODULE"] = "fanout_parts.stock.settings"


def main() -> None:
    if sys.argv[1] == "prepare":
        prepare()
        return
    from daphne.cli import CommandLineInterface

    port, tokens = sys.argv[1:]
    Publisher({"events": publish_events, "rows": publish_rows}, int(tokens)).start()
    CommandLineInterface().run(
        ["--bind", "127.0.0.1", "--port", port, "--verbosity", "0", "fanout_parts.stock.asgi:application"]
    )


def prepare() -> None:
    """Make the tables, a person, and a session."""
    import django

    django.setup()

    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    call_command("migrate", run_syncdb=True, verbosity=0)
    publish_rows(0, 10)
    client = Client()
    client.force_login(User.objects.create_user("viewer"))
    print(f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}")


def event_of(number: int) -> dict[str, Any]:
    """Return an event whose JSON has the size of an event."""
    data = {"run_id": 1, "round": 1, "text": mark(number)}
    event = {"event": "training_progress", "data": data}
    data["text"] = mark(number).ljust(MARK_BYTES + EVENT_BYTES - len(json.dumps(event)), ".")
    return event


def publish_events(first: int, count: int) -> None:
    """Send events to the group, and wait as a view would until the layer has taken each."""
    from channels.layers import get_channel_layer

    from fanout_parts.stock.asgi import GROUP, loops

    layer: Any = get_channel_layer()
    for number in range(first, first + count):
        message = {"type": "event", "content": event_of(number)}
        asyncio.run_coroutine_threadsafe(layer.group_send(GROUP, message), loops[0]).result()


def publish_rows(first: int, count: int) -> None:
    """Insert rows for those who poll."""
    from fanout_parts.stock.models import Happening

    for number in range(first, first + count):
        Happening.objects.create(text=mark(number).ljust(EVENT_BYTES, "."))


if __name__ == "__main__":
    main()
