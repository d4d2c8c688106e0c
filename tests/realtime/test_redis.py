"""Two servers that share Redis: what one hears the other tells at once; and Redis may go and come back."""

import json
import time

import pytest
from django.conf import settings
from django.db import connection
from websockets.sync.client import connect

from tests.realtime.acts import note, record_now
from tests.realtime.servers import start_server


@pytest.fixture
def server(transactional_db, tmp_path, redis_url):
    """A server that looks into the log so seldom that what arrives has come through Redis."""
    environment = {
        "REDIS_URL": redis_url,
        "QFLARE_PUBLIC_DASHBOARD": "1",
        "QFLARE_POLL_SECONDS": "60",
        "QFLARE_SECRET_KEY": settings.SECRET_KEY,
    }
    server = start_server(tmp_path, database=connection.settings_dict["NAME"], environment=environment)
    yield server
    server.stop()


def test_what_another_process_records_comes_through_redis(server):
    with connect(server.websocket_url("/ws/dashboard")) as socket:
        socket.recv()
        program = (
            "from django.utils import timezone\nfrom fl import events\n"
            "from edge.protocol.server import ErrorNotification\n"
            "with events.transaction():\n"
            "    events.record('system', ErrorNotification(code='x', title='from a shell'), timezone.now())\n"
        )
        started = time.monotonic()
        server.manage("shell", "-v0", "-c", program)

        while (frame := json.loads(socket.recv(timeout=50)))["event"] != "error_notification":
            pass

        assert (frame["seq"], frame["data"]["title"]) == (1, "from a shell")
        assert time.monotonic() - started < 60, "it came by the log, not through Redis"


@pytest.mark.parametrize("redis", ["redis://127.0.0.1:1/0", ""], ids=["away", "none"])
def test_where_redis_is_away_from_the_start_or_there_is_none_the_log_tells_all(transactional_db, tmp_path, redis):
    environment = {
        "REDIS_URL": redis,
        "QFLARE_PUBLIC_DASHBOARD": "1",
        "QFLARE_POLL_SECONDS": "0.2",
        "QFLARE_SECRET_KEY": settings.SECRET_KEY,
    }
    server = start_server(tmp_path, database=connection.settings_dict["NAME"], environment=environment)
    try:
        with connect(server.websocket_url("/ws/dashboard")) as socket:
            assert json.loads(socket.recv())["event"] == "welcome"
            record_now("system", note("1"), note("2"))
            seqs = []
            while len(seqs) < 2:
                frame = json.loads(socket.recv(timeout=60))
                seqs += [frame["seq"]] if "seq" in frame else []
            assert seqs == [1, 2]
    finally:
        server.stop()
