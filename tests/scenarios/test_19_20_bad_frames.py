"""Frames that break the rules, and frames that are too long: who sends them is told why, and nobody else notices.

The wire's part knows nothing of the layer. It is tried on each all the same, since a neighbour's events go over it.
"""

import contextlib
import json
import random
import socket

from django.utils import timezone

from edge.protocol.close_codes import MEANINGS
from fl.models import Device
from realtime.limits import CHUNK_BYTES
from tests.realtime.documented import DOCUMENTED
from tests.realtime.raw import BINARY, CLOSE, PING, TEXT, RawClient, Refused
from tests.scenarios.crowd import Crowd
from tests.scenarios.table import SEED, scenario

WIRE_CODES = {1002, 1006, 1007, 1009}
MIB = 1024 * 1024

ANSWERED = {
    "empty": (lambda client: client.send(""), "invalid_json"),
    "NUL": (lambda client: client.send("\0"), "invalid_json"),
    "cut off": (lambda client: client.send('{"type":"unsub","streams":["sys'), "invalid_json"),
    "a number": (lambda client: client.send("42"), "invalid_message"),
    "a text": (lambda client: client.send('"heartbeat"'), "invalid_message"),
    "null": (lambda client: client.send("null"), "invalid_message"),
    "a list": (lambda client: client.send("[]"), "invalid_message"),
    "nested 5,000 deep": (lambda client: client.send("[" * 5000), "invalid_message"),
    "an argument nested 5,000 deep": (
        lambda client: client.send('{"type":"cmd","name":"x","idem":"y","args":{"a":' + "[" * 5000 + "]" * 5000 + "}}"),
        "invalid_json",
    ),
    "NaN": (lambda client: client.send('{"type":"ack","stream":"x","seq":NaN}'), "invalid_json"),
    "1e400": (lambda client: client.send('{"type":"ack","stream":"x","seq":1e400}'), "invalid_message"),
    "a lone surrogate": (lambda client: client.send('{"type":"unsub","streams":["\\ud800"]}'), "invalid_json"),
    "an unknown type": (lambda client: client.send('{"type":"other"}'), "unknown_type"),
    "two types": (
        lambda client: client.send('{"type":"heartbeat","type":"unsub","streams":[]}'),
        "unknown_type",
    ),
    "binary": (lambda client: client.send(b"\x00\x01", BINARY), "binary_not_supported"),
    "empty binary": (lambda client: client.send(b"", BINARY), "binary_not_supported"),
}
TAKEN = {
    "a type said twice": '{"type":"unsub","type":"unsub","id":"the last","streams":[]}',
    "a field said twice": '{"type":"unsub","id":"first","id":"the last","streams":[]}',
}
ENDED = {
    "bad UTF-8": (lambda client: client.send(b"\xff\xfe\xfd"), 1007),
    "a surrogate in UTF-8": (lambda client: client.send(b'"\xed\xa0\x80"'), 1007),
    "unmasked": (lambda client: client.send("{}", mask=False), 1002),
    "reserved bits": (lambda client: client.send("{}", reserved=4), 1002),
    "a reserved opcode": (lambda client: client.send("{}", opcode=5), 1002),
    "a control frame in fragments": (lambda client: client.send(b"x" * 10, PING, fin=False), 1002),
    "a long control frame": (lambda client: client.send(b"x" * 126, PING), 1002),
    "a continuation of nothing": (lambda client: client.send(b"x", 0), 1002),
}
VALID = [
    '{"type":"sub","id":"1","streams":["system"],"since":{"system":{"epoch":"e","seq":1}}}',
    '{"type":"unsub","id":"2","streams":["system"]}',
    '{"type":"heartbeat"}',
    '{"type":"ack","stream":"system","seq":3}',
    '{"type":"cmd","id":"3","name":"stop_run","args":{"run":1},"idem":"i"}',
]


class Ground:
    """A server, a neighbour that keeps the rules, and clients that do not."""

    def __init__(self, stand, **settings):
        self.server = stand.start(**settings)
        self.cookie = stand.cookie()
        self.neighbours = Crowd(self.server, 2, cookie=self.cookie)
        self._told = 0

    def client(self, **options):
        client = RawClient(
            self.server.port, "/ws/dashboard", origin=self.server.url, headers=[f"Cookie: {self.cookie}"], **options
        )
        assert json.loads(client.text())["event"] == "welcome"
        return client

    def neighbours_are_told(self):
        self._told += 1
        self.server.ask("record", stream="system", count=1, size=300)
        self.neighbours.wait_for("system", self._told)

    def neighbours_have_noticed_nothing(self):
        self.neighbours_are_told()
        self.neighbours.assert_exact()


@scenario(19, "broken messages are answered, broken frames end their own connection with the real code")
def test_whatever_is_broken_has_its_documented_answer_or_code_and_a_neighbour_notices_nothing(stand):
    ground = Ground(stand)

    for name, (say, code) in ANSWERED.items():
        client = ground.client()
        say(client)
        assert (name, error_in(client)) == (name, code)
        assert still_taken(client), name
    for name, text in TAKEN.items():
        client = ground.client()
        client.send(text)
        assert (name, result_in(client)) == (name, "the last")
    for name, (break_it, code) in ENDED.items():
        client = ground.client()
        with contextlib.suppress(ConnectionError):  # the server may hang up before all of it is sent
            break_it(client)
        assert (name, client.close_code()) == (name, code)
        ground.neighbours_are_told()

    ground.neighbours_have_noticed_nothing()


@scenario(19, "a message in fragments of one byte is one message")
def test_a_message_in_fragments_of_one_byte_is_one_message(stand):
    client = Ground(stand).client()
    text = b'{"type":"unsub","id":"f","streams":[]}'

    for index in range(len(text)):
        client.send(text[index : index + 1], TEXT if index == 0 else 0, fin=index == len(text) - 1)

    assert result_in(client) == "f"


@scenario(19, "no bytes drawn from a seed stop a server or disturb a neighbour")
def test_no_bytes_stop_a_server_or_disturb_a_neighbour(stand):
    chance = random.Random(SEED)
    ground = Ground(stand)

    for _ in range(6):
        send_texts(ground.client(), chance)
        send_frames(ground.client(), chance)
        send_before_the_upgrade(ground.server, chance)
        ground.neighbours_are_told()

    ground.neighbours_have_noticed_nothing()


@scenario(20, "64 KiB and a byte are answered, 1 MiB and a byte or fragments without end are cut")
def test_what_is_too_long_is_answered_or_cut_and_a_neighbour_notices_nothing(stand):
    ground = Ground(stand)
    long, longer, endless = (ground.client() for _ in range(3))

    long.send('{"type":"sub","streams":["' + "x" * 65536 + '"]}')
    with contextlib.suppress(ConnectionError):
        longer.send(b" " * (MIB + 1))
    endless.send(b" ", TEXT, fin=False)
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            endless.send(b" " * 16_384, 0, fin=False)

    assert error_in(long) == "too_large"
    assert still_taken(long)
    # Where the peer is still sending when the server hangs up, the kernel may throw the close frame away.
    assert longer.close_code() in (1006, 1009)
    assert endless.close_code() in (1006, 1009)
    ground.neighbours_have_noticed_nothing()


@scenario(20, "a snapshot of 5 MiB comes in chunks")
def test_a_snapshot_of_five_mebibytes_comes_whole_in_frames_that_any_server_sends(stand):
    named = {"public_key": b"x", "state": "suspended", "state_reason": "y" * 500, "enrolled_at": timezone.now()}
    count = 7_500
    Device.objects.bulk_create(Device(name=f"{n:05d} {'x' * 90}", fingerprint=str(n), **named) for n in range(count))
    # To make three of them takes a busy machine its time.
    ground = Ground(stand, QFLARE_HANDSHAKE_SECONDS="120")

    client = ground.client(receive_buffer=4096)
    frames, names = [], []
    while not frames or json.loads(frames[-1])["data"]["more"]:
        frame = client.text()
        if json.loads(frame)["event"] == "snapshot":
            frames.append(frame)
            names += [device["name"] for device in json.loads(frame)["data"]["devices"]]

    assert sum(map(len, frames)) > 5 * MIB
    assert max(len(frame.encode()) for frame in frames) <= CHUNK_BYTES
    assert names == [f"{n:05d} {'x' * 90}" for n in range(count)]
    ground.neighbours_have_noticed_nothing()


def error_in(client):
    """Read up to an error, and return its code."""
    while (frame := json.loads(client.text()))["event"] != "error":
        pass
    return frame["data"]["code"]


def result_in(client):
    """Read up to a result, and return which message it answers."""
    while (frame := json.loads(client.text()))["event"] != "result":
        pass
    return frame["id"]


def still_taken(client):
    client.send('{"type":"unsub","id":"still here","streams":[]}')
    return result_in(client) == "still here"


def send_texts(client, chance):
    """Send messages with letters changed: each is taken, or has a documented answer, or ends it with a known code."""
    for _ in range(15):
        client.send(changed(chance, chance.choice(VALID)))
    client.send('{"type":"unsub","id":"the last","streams":[]}')
    while True:
        opcode, payload = client.receive()
        if opcode == CLOSE:
            assert payload in MEANINGS
            return
        frame = json.loads(payload) if opcode == TEXT else {"event": None}
        if frame["event"] == "error":
            assert frame["data"]["code"] in DOCUMENTED
        if frame.get("id") == "the last":
            return


def send_frames(client, chance):
    """Break the rules of frames: the connection ends with a code that says why, or goes on."""
    with contextlib.suppress(ConnectionError):
        for _ in range(chance.randrange(1, 6)):
            if chance.random() < 0.3:
                client.socket.sendall(chance.randbytes(chance.randrange(1, 300)))
                continue
            payload = chance.randbytes(chance.choice([0, 1, 125, 126, 500]))
            breach = {"fin": chance.random() < 0.5, "mask": chance.random() < 0.7, "reserved": chance.choice([0, 0, 4])}
            client.send(payload, chance.randrange(16), **breach)
    with contextlib.suppress(ConnectionError):
        client.send(b"", 5)  # which ends it, if nothing did before
        # A length that was announced, and never comes, would be waited for.
        client.socket.shutdown(socket.SHUT_WR)
    assert client.close_code() in WIRE_CODES | set(MEANINGS) | {1000, 1005}


def send_before_the_upgrade(server, chance):
    """Say nonsense instead of HTTP, or half of it: it is answered, or the connection ends."""
    lines = [
        "GET /ws/dashboard HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: y",
    ]
    for junk in (
        chance.randbytes(chance.randrange(1, 2000)),
        changed(chance, "\r\n".join([*lines, "Sec-WebSocket-Version: 13", "", ""])).encode("utf-8", "replace"),
        "\r\n".join(lines).encode(),
    ):
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer,
            contextlib.suppress(ConnectionError),
        ):
            peer.sendall(junk)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
    with contextlib.suppress(Refused, ConnectionError):
        RawClient(server.port, "/ws/" + chance.randbytes(6).hex())


def changed(chance, text):
    """Change, drop or double up to three letters."""
    letters = list(text)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(letters))
        other = chance.choice([*'{}[]",:9-e\\\0\u2028', chr(chance.randrange(32, 0xD7FF))])
        letters[place] = chance.choice(["", letters[place] * 2, other])
    return "".join(letters)
