"""Rules of the wire, over real servers in processes of their own: Daphne and uvicorn, as `manage.py serve` has them."""

import asyncio
import contextlib
import json
import random
import re
import time

import httpx
import pytest
from django.conf import settings
from django.db import connection
from websockets.sync.client import connect

from fl.models import Event
from realtime.models import ServerProcess
from tests.builders import person
from tests.realtime.acts import cookie_of, note, record, record_now
from tests.realtime.raw import BINARY, CLOSE, PING, PONG, TEXT, RawClient, Refused, dashboard
from tests.realtime.servers import ENVIRONMENT, OURS, start_server

END_SECONDS = 5
MARGIN_SECONDS = 10
"""For a machine that others use too: without an end of its own, the server would wait for such peers without end."""


@pytest.fixture(scope="module", params=OURS)
def running(request, django_db_setup, django_db_blocker, tmp_path_factory):
    """A server on the tests' own database, for all tests of this module: it hears of their events by the log."""
    with django_db_blocker.unblock():
        database = connection.settings_dict["NAME"]
    environment = {**ENVIRONMENT, "QFLARE_SECRET_KEY": settings.SECRET_KEY}
    folder = tmp_path_factory.mktemp(request.param)
    server = start_server(folder, database=database, kind=request.param, environment=environment)
    yield server
    server.stop()


@pytest.fixture
def server(running, transactional_db):
    """The running server; the database is emptied after each test."""
    return running


@pytest.fixture
def neighbour(server):
    """A dashboard that keeps the rules, and must not notice what others do."""
    with connect(server.websocket_url("/ws/dashboard"), max_size=None, max_queue=None) as socket:
        socket.recv()
        yield socket


def still_served(neighbour, title="still served"):
    record_now("system", note(title))
    while (frame := json.loads(neighbour.recv(timeout=60)))["event"] != "error_notification" or (
        frame["data"]["title"] != title
    ):
        pass


def test_the_three_lines_of_the_original_work(server):
    # new WebSocket('…/api/ws/dashboard'), then JSON.parse(e.data), then m.event and m.data
    client = RawClient(server.port, "/api/ws/dashboard", origin=server.url)
    heard = [json.loads(client.text())]
    record_now("system", note("heard"))

    while heard[-1]["event"] != "error_notification":
        heard.append(json.loads(client.text()))

    assert heard[0]["event"] == "welcome"
    assert all(isinstance(message["data"], dict) for message in heard)
    assert heard[-1]["data"]["title"] == "heard"


def test_what_another_process_records_arrives_in_order_without_a_shared_layer(server, neighbour):
    record_now("system", *[note(str(n)) for n in range(1, 501)])

    found = []
    while len(found) < 500:
        frame = json.loads(neighbour.recv(timeout=60))
        if "seq" in frame:
            found.append((frame["seq"], frame["data"]["title"]))

    assert found == [(n, str(n)) for n in range(1, 501)]


def test_what_is_recorded_in_a_request_is_told_at_once(server, neighbour):
    cookie = cookie_of(person("ada", "admin"))
    with httpx.Client(base_url=server.url, headers={"Cookie": f"{cookie}; csrftoken={'x' * 32}"}) as client:
        answer = client.post(
            "/api/v1/broadcasts/",
            json={"message": "hello", "audiences": ["dashboard"]},
            headers={"X-CSRFToken": "x" * 32, "Origin": server.url},
        )
    assert answer.status_code == 201, answer.text

    while (frame := json.loads(neighbour.recv(timeout=60)))["event"] != "broadcast":
        pass

    assert (frame["data"]["message"], frame["data"]["sender"]) == ("hello", "ada")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("path", ["/ws/dashboard", "/ws/admin", "/ws"])
def test_a_foreign_page_is_refused_at_the_door(server, path, origin):
    with pytest.raises(Refused) as refused:
        RawClient(server.port, path, origin=origin)

    assert refused.value.status == 403
    assert origin in server.log


def test_a_listed_origin_and_our_own_are_let_in(server):
    for origin in ("https://app.example", server.url):
        assert dashboard(server, origin=origin)


def test_the_subprotocol_is_answered(server):
    client = RawClient(server.port, "/ws", headers=["Sec-WebSocket-Protocol: other, qflare.v1"])

    assert re.search(r"(?i)sec-websocket-protocol: qflare\.v1", client.head)


def test_no_frame_is_compressed(server):
    offer = ["Sec-WebSocket-Extensions: permessage-deflate"]
    client = RawClient(server.port, "/ws", headers=offer)

    assert "permessage-deflate" not in client.head


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "code"), [("/ws/admin", 4500), ("/ws/clients", 4500)])
def test_a_refusal_has_its_code_and_a_bye_before_it(server, path, code):
    client = RawClient(server.port, path)
    if path == "/ws/clients":
        client.send('{"type":"heartbeat"}')

    events = [json.loads(client.text()) for _ in range(2)]

    assert [event["event"] for event in events] == ["error", "bye"]
    assert events[1]["data"]["code"] == code
    assert client.close_code() == code


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda client: client.send(b"\xff\xfe\xfd"), 1007),
        (lambda client: client.send("{}", mask=False), 1002),
        (lambda client: client.send("{}", reserved=4), 1002),
        (lambda client: client.send("{}", opcode=5), 1002),
        (lambda client: client.send(b"x" * 10, PING, fin=False), 1002),
        (lambda client: client.send(b"x" * 126, PING), 1002),
        (lambda client: client.send(b" " * (1024 * 1024 + 1)), 1009),
    ],
    ids=[
        "bad UTF-8",
        "unmasked",
        "reserved bits",
        "reserved opcode",
        "fragmented control",
        "long control",
        "over 1 MiB",
    ],
)
def test_a_broken_frame_ends_its_own_connection_with_the_real_code(server, neighbour, break_it, code):
    client = dashboard(server)

    # The server may hang up before all of it is sent.
    with contextlib.suppress(ConnectionError):
        break_it(client)
    found = client.close_code()

    # Where the peer is still sending when the server hangs up, the kernel may throw the close frame away.
    assert found == code or (code == 1009 and found == 1006)
    still_served(neighbour)


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (lambda client: client.send(""), "invalid_json"),
        (lambda client: client.send("\0"), "invalid_json"),
        (lambda client: client.send(b"\x00\x01", BINARY), "binary_not_supported"),
        (lambda client: client.send(b"", BINARY), "binary_not_supported"),
        (lambda client: client.send('{"type":"sub","streams":["' + "x" * 65536 + '"]}'), "too_large"),
        (lambda client: client.send("[" * 5000), "invalid_message"),
        (lambda client: client.send('{"type":"ack","stream":"x","seq":1e400}'), "invalid_message"),
    ],
    ids=["empty", "NUL", "binary", "empty binary", "over 64 KiB", "deep nesting", "1e400"],
)
def test_a_message_that_cannot_be_taken_is_answered_and_the_connection_lives(server, say, code):
    client = dashboard(server)

    say(client)

    while (frame := json.loads(client.text()))["event"] != "error":
        pass
    assert frame["data"]["code"] == code
    client.send('{"type":"unsub","id":"still here","streams":[]}')
    while (frame := json.loads(client.text()))["event"] != "result":
        pass
    assert frame["id"] == "still here"


def test_a_message_in_fragments_of_one_byte_is_one_message(server):
    client = dashboard(server)
    text = b'{"type":"unsub","id":"f","streams":[]}'

    for index in range(len(text)):
        opcode = TEXT if index == 0 else 0
        client.send(text[index : index + 1], opcode, fin=index == len(text) - 1)

    while (frame := json.loads(client.text()))["event"] != "result":
        pass
    assert frame["id"] == "f"


def test_a_ping_is_answered(server):
    client = dashboard(server)

    client.send(b"there?", PING)

    while (found := client.receive())[0] != PONG:
        assert found[0] != CLOSE
    assert found[1] == b"there?"


def test_many_who_vanish_without_a_word_leave_nothing_behind(server, neighbour):
    before = len(server.log)

    for _ in range(20):
        dashboard(server).drop()

    still_served(neighbour)
    assert "Traceback" not in server.log[before:]


# ── readers that do not read ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_peer_that_never_reads_is_ended_and_its_neighbours_get_everything(server, neighbour):
    stuck = dashboard(server, receive_buffer=4096)
    number = 1200

    # Far more than all buffers between the two hold together.
    for start in range(0, number, 200):
        record_now("system", *[note(f"{start + n} " + "x" * 20_000) for n in range(200)])
    found = []
    while len(found) < number:
        frame = json.loads(neighbour.recv(timeout=120))
        if "seq" in frame:
            found.append(frame["seq"])

    assert found == list(range(1, number + 1))
    server.wait_for_log("took nothing")
    assert stuck.close_code() in (1006, 4008)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("seed", [1, 2])
def test_however_slowly_peers_read_and_whenever_they_join_each_gets_the_same_letters(own_server, kind, seed):
    # How long each is left to itself depends on the machine, and nobody is to be ended for it.
    server = own_server(kind, QFLARE_STALL_SECONDS="600")
    chance = random.Random(seed)
    number, texts = 0, {}
    peers = [SlowReader(server) for _ in range(3)]

    for _ in range(40):
        titles = [f"{'x' * chance.choice([1, 100, 3_000, 40_000])}" for _ in range(chance.randrange(1, 8))]
        record_now("system", *[note(title) for title in titles])
        number += len(titles)
        if len(peers) < 6 and chance.random() < 0.2:
            peers.append(SlowReader(server))
        for peer in chance.sample(peers, 2):
            peer.client.send(b"still there?", PING)
            peer.read_until(chance.randrange(number), texts)

    for peer in peers:
        peer.read_until(number, texts)
        assert peer.seqs == list(range(peer.seqs[0], number + 1))


class SlowReader:
    """A dashboard with a small buffer, that reads when the test lets it; `recent_events` come as what they hold."""

    def __init__(self, server):
        self.client = dashboard(server, receive_buffer=4096)
        self.seqs = []

    def read_until(self, seq, texts):
        """Read until this event has come; what others have seen of an event must be the same."""
        while not self.seqs or self.seqs[-1] < seq:
            opcode, payload = self.client.receive()
            if opcode == PONG:
                continue
            assert opcode == TEXT, payload
            frame = json.loads(payload)
            if frame["event"] == "recent_events":
                self.seqs += [event["seq"] for event in frame["data"]["events"]]
            elif "seq" in frame:
                self.seqs.append(frame["seq"])
                assert texts.setdefault(frame["seq"], payload) == payload


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", OURS)
def test_on_sigterm_everybody_is_told_when_to_come_back_and_the_server_ends_in_order(own_server, kind):
    server = own_server(kind)
    clients = [dashboard(server) for _ in range(30)]
    silent = RawClient(server.port, "/ws/clients")  # in the middle of a handshake

    server.process.terminate()

    waits = []
    for client in clients:
        while (frame := json.loads(client.text()))["event"] != "bye":
            pass
        assert frame["data"]["code"] == 4001
        waits.append(frame["data"]["retry_after_ms"])
        assert client.close_code() == 4001
    assert len(set(waits)) > 10
    assert all(500 <= wait <= 10_000 for wait in waits)
    assert silent.close_code() == 4001
    assert server.stop() == 0
    assert "Traceback" not in server.log
    assert not ServerProcess.objects.filter(instance__contains=f"-{server.process.pid}-").exists()


@pytest.mark.parametrize("kind", OURS)
def test_peers_that_do_not_read_do_not_hold_up_the_end(own_server, kind):
    server = own_server(kind, QFLARE_STALL_SECONDS="60")
    neighbour = dashboard(server)
    for _ in range(50):
        dashboard(server, receive_buffer=4096)
    for start in range(0, 60, 20):
        record_now("system", *[note(f"{start + n} " + "x" * 20_000) for n in range(20)])
    while json.loads(neighbour.text()).get("seq") != 60:
        pass

    asked_at = time.monotonic()
    server.process.terminate()

    assert neighbour.close_code() == 4001
    assert server.stop() == 0
    assert time.monotonic() - asked_at < END_SECONDS + MARGIN_SECONDS
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", OURS)
def test_who_comes_back_after_a_kill_gets_exactly_what_was_missed(own_server, kind):
    server = own_server(kind)
    client = dashboard(server)
    record_now("system", note("1"))
    while "seq" not in (frame := json.loads(client.text())):
        pass
    epoch = Event.objects.get(seq=1).stream.epoch

    server.kill()
    record_now("system", note("2"), note("3"))
    server.start()

    again = RawClient(server.port, f"/ws/dashboard?since=system:{epoch}:{frame['seq']}")
    assert json.loads(again.text())["event"] == "welcome"
    recent = json.loads(again.text())["data"]
    assert recent["recovered"]
    assert [event["data"]["title"] for event in recent["events"]] == ["2", "3"]


@pytest.mark.parametrize("kind", OURS)
async def test_a_storm_of_reconnects_while_events_are_recorded_loses_and_doubles_nothing(own_server, kind):
    server = own_server(kind, QFLARE_POLL_SECONDS="0.05")
    await record("system", note("0"))
    epoch = await asyncio.to_thread(lambda: Event.objects.get(seq=1).stream.epoch)
    total = 300

    async def follow(index):
        from websockets.asyncio.client import connect as connect_async

        position, seen = 1, []
        while position < total + 1:
            uri = server.websocket_url(f"/ws/dashboard?since=system:{epoch}:{position}")
            async with connect_async(uri) as socket:
                for _ in range(3 + (index * 7 + len(seen)) % 23):
                    frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
                    new = []
                    if frame["event"] == "recent_events":
                        assert frame["data"]["recovered"]
                        new = [event["seq"] for event in frame["data"]["events"]]
                    elif "seq" in frame:
                        new = [frame["seq"]]
                    seen += new
                    position = new[-1] if new else position
                    if position >= total + 1:
                        break
        return seen

    def publish():
        for n in range(1, total + 1):
            record_now("system", note(str(n)))

    followers = [asyncio.create_task(follow(index)) for index in range(10)]
    await asyncio.to_thread(publish)

    for seen in await asyncio.gather(*followers):
        assert seen == list(range(2, total + 2))
