"""What differs under the stock `uvicorn` command, as the deployment document says; the promise is kept there too."""

import json
import signal
from pathlib import Path

import pytest

from fl.models import Stream
from realtime.models import ServerProcess
from tests.fl.threads import eventually
from tests.realtime.acts import note, record_now
from tests.realtime.raw import CLOSE, RawClient, dashboard
from tests.realtime.servers import OURS, STOCK


def is_held(client):
    """Say whether a process still has the server's end of a connection; the kernel may still be sending its rest."""
    port = client.socket.getsockname()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[9] != "0" for row in rows)


def stuff(server):
    """Connect a peer that takes nothing, let too much wait for it, and wait until it is given up."""
    stuck = dashboard(server, receive_buffer=4096)
    for start in range(0, 400, 200):
        record_now("system", *[note(f"{start + n} " + "x" * 20_000) for n in range(200)])
    server.wait_for_log("took nothing")
    return stuck


def test_its_codes_are_its_own_and_whoever_comes_back_resumes(own_server):
    server = own_server(STOCK)
    client, careless = dashboard(server), dashboard(server)
    record_now("system", note("1"))
    while "seq" not in (frame := json.loads(client.text())):
        pass

    # Bad text is told by its code, and logged as an error of the server.
    careless.send(b"\xff\xfe\xfd")
    assert careless.close_code() == 1007
    server.wait_for_log("Invalid UTF-8 sequence")

    # The end is told by the code for it, without a bye before it.
    server.process.terminate()
    while (received := client.receive())[0] != CLOSE:
        assert json.loads(received[1])["event"] != "bye"
    assert received[1] == 1012
    assert server.stop() == -signal.SIGTERM
    assert not ServerProcess.objects.filter(instance__contains=f"-{server.process.pid}-").exists()

    record_now("system", note("2"), note("3"))
    server.start()
    epoch = Stream.objects.get(name="system").epoch
    again = RawClient(server.port, f"/ws/dashboard?since=system:{epoch}:{frame['seq']}")
    assert json.loads(again.text())["event"] == "welcome"
    recent = json.loads(again.text())["data"]
    assert [event["data"]["title"] for event in recent["events"]] == ["2", "3"]


def test_it_gives_up_a_peer_that_never_reads_but_keeps_its_connection(own_server):
    server = own_server(STOCK)

    stuck = stuff(server)

    assert is_held(stuck)
    server.process.terminate()
    assert server.process.wait(60) == -signal.SIGTERM  # --timeout-graceful-shutdown; it would wait for the peer


@pytest.mark.parametrize("kind", OURS)
def test_ours_end_the_connection_of_a_peer_that_never_reads(own_server, kind):
    server = own_server(kind)

    stuck = stuff(server)

    eventually(lambda: not is_held(stuck))
