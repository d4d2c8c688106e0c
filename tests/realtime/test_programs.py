"""A program follows a server for real: over restarts, each event once; the example of the document is what runs."""

import asyncio
import re
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from edge.errors import Barred, InsecureAddress
from edge.events import Events
from edge.protocol.server import Position
from fl.models import Event
from tests.builders import person
from tests.realtime.acts import cookie_of, note, record_now
from tests.realtime.servers import start_server

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def server(transactional_db, tmp_path):
    """A server on the tests' own database: it hears of their events by the log."""
    environment = {"QFLARE_SECRET_KEY": settings.SECRET_KEY, "QFLARE_POLL_SECONDS": "0.05"}
    server = start_server(tmp_path / "server", database=connection.settings_dict["NAME"], environment=environment)
    yield server
    server.stop()


def test_a_program_gets_each_event_once_over_kills_of_the_server(server):
    cookie = cookie_of(person("ada", "viewer"))
    record_now("system", note("before"))
    events = Events(server.url, cookie=cookie)
    following = iter(events)
    assert next(following).event == "snapshot"
    record_now("system", note("1"))
    assert next(following).data["title"] == "1"

    server.kill()
    record_now("system", note("2"), note("3"))
    restart = threading.Thread(target=server.start)
    restart.start()
    found = [next(following) for _ in range(2)]
    restart.join()

    assert [(event.stream, event.seq, event.data["title"]) for event in found] == [
        ("system", 3, "2"),
        ("system", 4, "3"),
    ]
    # The last is taken once the next is asked for, so another program finds it again.
    resumed = iter(Events(server.url, cookie=cookie, positions=events.positions))
    assert next(resumed).seq == 4
    record_now("system", note("4"))
    assert [event.seq for event in (next(resumed), next(following))] == [5, 5]
    assert Event.objects.filter(stream="system").count() == 5

    with pytest.raises(Barred, match="signed-in") as barred:
        next(iter(Events(server.url)))
    assert barred.value.code == 4500

    # The example of the document, word for word but for its address and cookie.
    example = re.search(
        r"```python\n(from edge.events import.*?)```", (ROOT / "docs/protocol.md").read_text(), re.DOTALL
    )[1]
    assert len(example.strip().splitlines()) <= 5
    example = example.replace("https://learning.example.org", server.url).replace("sessionid=…", cookie)
    said = []

    def say(*words):
        said.append(words)
        raise StopIteration

    with pytest.raises(StopIteration):
        exec(example, {"print": say})  # noqa: S102 - it is our own text
    assert said[0][2] == "snapshot"

    # As in a notebook, whose own loop runs in the very thread that waits.
    async def in_a_notebook():
        return next(iter(Events(server.url, cookie=cookie)))

    assert asyncio.run(in_a_notebook()).event == "snapshot"


def test_a_program_that_has_seen_a_thousand_runs_is_let_in(server):
    cookie = cookie_of(person("ada", "viewer"))
    record_now("system", note("1"))
    seen = {f"run:{number}": Position(epoch="Kq3v_x-1", seq=8) for number in range(100_001, 101_001)}

    first = next(iter(Events(server.url, cookie=cookie, positions=seen)))

    assert (first.stream, first.seq) == ("system", 1)


def test_a_session_is_not_sent_in_the_clear():
    with pytest.raises(InsecureAddress):
        Events("http://learning.example.org", cookie="sessionid=x")
