"""What one peer can make the server keep, over real servers in processes of their own."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fl.threads import eventually
from tests.realtime.raw import CLOSE, PING, PONG, RawClient, drop_all
from tests.realtime.servers import OURS, start_server

MB = 1024**2
PINGS = (bytes([0x80 | PING, 0x80 | 125, 0, 0, 0, 0]) + b"?" * 125) * 1000


@pytest.fixture(scope="module", params=OURS)
def server(request, tmp_path_factory):
    environment = {"QFLARE_PUBLIC_DASHBOARD": "1", "QFLARE_STATISTICS_SECONDS": "0.2"}
    server = start_server(tmp_path_factory.mktemp(request.param), kind=request.param, environment=environment)
    yield server
    drop_all()
    server.stop()


def dashboard(server, **options):
    client = RawClient(server.port, "/ws/dashboard", **options)
    assert json.loads(client.text())["event"] == "welcome"
    return client


def memory_of(server):
    """Return how much of the server is in memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def still_answers(server):
    client = dashboard(server)
    client.send('{"type":"unsub","id":"1","streams":[]}')
    while json.loads(client.text())["event"] != "result":
        pass
    client.drop()


def test_a_peer_that_asks_and_never_reads_the_answers_is_answered_no_more(server):
    still_answers(server)
    before = memory_of(server)
    client = dashboard(server, receive_buffer=4096)

    # 40 MB of answers, were they all kept; for never reading those it has, it may be ended.
    with contextlib.suppress(ConnectionError):
        for _ in range(320):
            client.socket.sendall(PINGS)

    still_answers(server)
    assert memory_of(server) - before < 10 * MB


def test_a_flood_of_messages_is_neither_kept_nor_felt_by_others(server):
    still_answers(server)
    before = memory_of(server)
    client = dashboard(server, receive_buffer=4096)
    message = json.dumps({"type": "unsub", "streams": ["x" * 1000]})

    # 100 MB; it ends with too many messages, or sooner for never reading what is answered.
    with contextlib.suppress(ConnectionError):
        for _ in range(100_000):
            client.send(message)

    still_answers(server)
    assert memory_of(server) - before < 10 * MB


def test_bytes_are_counted_as_a_client_sees_them(server):
    still_answers(server)
    drop_all()
    sent, received = counted_when_nobody_is_there(server)
    client = dashboard(server)
    client.send('{"type":"unsub","id":"1","streams":["run:1"]}')
    client.send(b"there?", PING)
    client.send(b"", PING)
    client.send("no JSON, of 200 bytes or more" + "." * 200)
    client.send((1000).to_bytes(2, "big"), CLOSE)

    opcodes = []
    while not opcodes or opcodes[-1] != CLOSE:
        opcodes.append(client.receive()[0])

    assert opcodes.count(PONG) == 2
    expected = (sent + client.taken, received + client.given)
    eventually(lambda: row_of(server)[2:] == expected)


def counted_when_nobody_is_there(server):
    """Return the bytes sent and received, of a row that was made after all that has happened until now."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    row = eventually(lambda: (row := row_of(server)) and row[0] > now and not any(row[1].values()) and row)
    return row[2:]


def row_of(server):
    """Return what the server's row in the database says: when, open connections by type, bytes sent and received.

    None: it has not been written yet.
    """
    with sqlite3.connect(server.folder / "qflare.sqlite3") as database:
        query = "SELECT heard_at, connections, bytes_sent, bytes_received FROM realtime_serverprocess"
        row = database.execute(query).fetchone()
    return row and (row[0], json.loads(row[1]), *row[2:])
