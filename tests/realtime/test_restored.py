"""An older copy of the database is put back, with and without a server: clients get a snapshot, never a mix."""

import asyncio
import json
import shutil

import pytest

from fl.models import Event, Stream
from realtime.process import this_process
from tests.realtime import raw
from tests.realtime.acts import note, record, record_many
from tests.realtime.servers import start_server
from tests.realtime.sockets import Socket

RECORD = """
from django.db import connection
from django.utils import timezone
from edge.protocol.server import ErrorNotification
from fl import events
for title in {titles!r}:
    if title == "copy":
        connection.cursor().execute("VACUUM INTO %s", [{copy!r}])
        continue
    with events.transaction():
        events.record("system", ErrorNotification(code="x", title=title), timezone.now())
"""


def welcome_and_more(server, query=""):
    """Connect a dashboard; return what it gets up to the snapshot or the newest event, by event."""
    client = raw.RawClient(server.port, f"/ws/dashboard{query}")
    found = {}
    while True:
        frame = json.loads(client.text())
        found[frame["event"]] = frame["data"]
        if frame["event"] in ("snapshot", "recent_events") and (
            frame["event"] == "snapshot" or frame["data"]["recovered"]
        ):
            client.drop()
            return found


def position_in(opening):
    position = opening["welcome"]["streams"]["system"]
    return f"?since=system:{position['epoch']}:{position['seq']}", position


def test_a_database_that_is_put_back_while_the_server_is_down_is_another_history(tmp_path):
    copy = tmp_path / "copy.sqlite3"
    server = start_server(tmp_path / "server", environment={"QFLARE_PUBLIC_DASHBOARD": "1"})

    def record_in_a_process_of_its_own(*titles):
        server.manage("shell", "-c", RECORD.format(titles=titles, copy=str(copy)))

    try:
        record_in_a_process_of_its_own("both", "both", "copy", "lost", "lost")
        query, old = position_in(welcome_and_more(server))
        server.stop()
        for path in server.folder.glob("qflare.sqlite3*"):
            path.unlink()
        shutil.copy(copy, server.folder / "qflare.sqlite3")
        # Past the old head, before the server is there and anybody comes.
        record_in_a_process_of_its_own(*["new"] * 5)
        server.start()

        opening = welcome_and_more(server, query)

        position = opening["welcome"]["streams"]["system"]
        assert position["seq"] > old["seq"]
        assert position["epoch"] != old["epoch"]
        recent = opening["recent_events"]
        assert (recent["recovered"], recent["reason"]) == (False, "epoch")
        assert [event["data"]["title"] for event in recent["events"]] == ["both"] * 2 + ["new"] * 5
        assert opening["snapshot"]["streams"]["system"] == position
    finally:
        raw.drop_all()
        server.stop()


SECRET_KEY = "a key that is kept apart from the data, and long enough to be one"


def test_a_database_that_is_put_back_on_a_machine_with_a_fresh_folder_is_another_history_by_redis(tmp_path, redis_url):
    copy = tmp_path / "copy.sqlite3"
    # The secret key is not in the folder: it also says by which names on Redis this installation is known.
    environment = {"QFLARE_PUBLIC_DASHBOARD": "1", "REDIS_URL": redis_url, "QFLARE_SECRET_KEY": SECRET_KEY}
    server = start_server(tmp_path / "server", environment=environment)
    other = None
    try:
        server.manage("shell", "-c", RECORD.format(titles=("both", "both", "copy", "lost", "lost"), copy=str(copy)))
        query, old = position_in(welcome_and_more(server))
        server.stop()
        other = start_server(tmp_path / "other", environment=environment, database=copy)
        other.manage("shell", "-c", RECORD.format(titles=["new"] * 5, copy=""))

        opening = welcome_and_more(other, query)

        position = opening["welcome"]["streams"]["system"]
        assert position["seq"] > old["seq"]
        assert position["epoch"] != old["epoch"]
        assert opening["recent_events"]["reason"] == "epoch"
        assert "lost" not in json.dumps(opening)
        assert opening["snapshot"]["streams"]["system"] == position
    finally:
        raw.drop_all()
        server.stop()
        if other is not None:
            other.stop()


@pytest.fixture
async def dashboard(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_POLL_SECONDS = 3600
    await record_many("system", 5)
    socket = await Socket("/ws/dashboard").connect()
    await socket.opened()
    return socket


async def put_back(head):
    def change():
        Event.objects.filter(stream="system", seq__gt=head).delete()
        Stream.objects.filter(pk="system").update(head=head)
        return Stream.objects.get(pk="system").epoch

    return await asyncio.to_thread(change)


async def test_a_database_that_is_put_back_under_a_server_ends_the_connections_that_know_more(dashboard):
    await record("system", note("known"))
    await dashboard.until("error_notification")
    old = await put_back(3)

    await this_process().hub.poll()

    assert (await dashboard.closed())[0] == 4010
    again = await Socket(f"/ws/dashboard?since=system:{old}:6").connect()
    opening = await again.opened()
    assert opening["recent_events"][0]["reason"] == "epoch"
    assert opening["welcome"][0]["streams"]["system"]["epoch"] != old


async def test_what_was_heard_of_is_written_down_for_the_next_process(dashboard, settings):
    await record("system", note("known"))
    await dashboard.until("error_notification")

    await this_process()._look_at_histories()

    seen = json.loads(settings.QFLARE_SEEN_HEADS.read_text())
    assert seen["system"][1] == 6
