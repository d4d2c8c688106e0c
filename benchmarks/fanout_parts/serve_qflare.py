"""QFLARE as shipped (`manage.py serve --no-coordinator`), with a publisher in its process, where coordinators are.

python -m fanout_parts.serve_qflare PORT TOKENS [OPTION ...]     serve; options go to `manage.py serve`
python -m fanout_parts.serve_qflare prepare PEOPLE               make the database and print a session for each person
"""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from fanout_parts.marks import EVENT_BYTES, MARK_BYTES, mark
from fanout_parts.publisher import Publisher

if TYPE_CHECKING:
    from edge.protocol.server import ErrorNotification

os.environ["DJANGO_SETTINGS_MODULE"] = "qflare.settings"


def main() -> None:
    if sys.argv[1] == "prepare":
        prepare(int(sys.argv[2]))
        return
    from django.core.management import execute_from_command_line

    port, tokens, *options = sys.argv[1:]
    Publisher({"ticks": publish_ticks, "durable": publish_durable}, int(tokens)).start()
    execute_from_command_line(["manage.py", "serve", "--no-coordinator", "--port", port, *options])


def prepare(people: int) -> None:
    """Make the database, people who may watch, and a session for each."""
    import django

    django.setup()

    from django.conf import settings
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from django.test import Client

    from qflare.static import collect_if_stale

    call_command("migrate", verbosity=0)
    collect_if_stale()
    viewers = Group.objects.get(name="viewer")
    for number in range(people):
        user = User.objects.create_user(f"viewer-{number}")
        user.groups.add(viewers)
        client = Client()
        client.force_login(user)
        print(f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}")


def publish_ticks(first: int, count: int) -> None:
    """Tell ticks, each with a key of its own, so that none replaces another."""
    from django.utils import timezone

    from fl import events

    room = _room("ticks")
    for number in range(first, first + count):
        events.tick(_key(number), _note(mark(number) + room), stream=events.SYSTEM, now=timezone.now())


def publish_durable(first: int, count: int) -> None:
    """Record events, all of them in one transaction."""
    from django.utils import timezone

    from fl import events

    room = _room("durable")
    with events.transaction():
        for number in range(first, first + count):
            events.record(events.SYSTEM, _note(mark(number) + room), timezone.now())


def _key(number: int) -> str:
    return f"benchmark:{number}"


def _note(title: str) -> "ErrorNotification":
    """Return the same payload for both ways, so that they differ in nothing else."""
    from edge.protocol.server import ErrorNotification

    return ErrorNotification(code="benchmark", title=title)


@cache
def _room(mode: str) -> str:
    """Return what makes a frame as long as an event is to be, give or take the digits of the numbers in it."""
    from django.utils import timezone

    from edge.protocol.server import encode_frame

    note, now, number = _note("." * MARK_BYTES), timezone.now(), 1000
    if mode == "ticks":
        moment = int(now.timestamp() * 1000)
        frame = encode_frame(note.event, note, timestamp=now, key=_key(number), number=moment)
    else:
        frame = encode_frame(note.event, note, timestamp=now, stream="system", seq=number)
    return "." * (EVENT_BYTES - len(frame))


if __name__ == "__main__":
    main()
