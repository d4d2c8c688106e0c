"""Whatever anybody sends: a reason for who sent it, and nothing for anybody else. What is sent is drawn from a seed."""

import contextlib
import json
import os
import random
import re
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from edge.protocol import client as messages
from edge.protocol.close_codes import MEANINGS
from realtime.consumers.base import Refused as Answered
from realtime.consumers.base import parse
from tests.realtime.acts import note, record_now
from tests.realtime.raw import CLOSE, TEXT, RawClient, Refused, dashboard
from tests.realtime.servers import OURS

SEED = int(os.environ.get("QFLARE_TEST_SEED", "20261124"))
PROTOCOL = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()
MISTAKES = re.search(r"What cannot be taken is answered by(.*?)Ten errors", PROTOCOL, re.DOTALL).group(1)
DOCUMENTED = set(re.findall(r"`([a-z_]+)`", MISTAKES))
WIRE_CODES = {1002, 1006, 1007, 1009}

VALID = [
    '{"type":"sub","id":"1","streams":["system"],"since":{"system":{"epoch":"e","seq":1}}}',
    '{"type":"unsub","id":"2","streams":["system"]}',
    '{"type":"heartbeat"}',
    '{"type":"ack","stream":"system","seq":3}',
    '{"type":"cmd","id":"3","name":"stop_run","args":{"run":1},"idem":"i"}',
]
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda children: some.lists(children) | some.dictionaries(some.text(), children),
)
TYPES = some.sampled_from(["hello", "auth", "heartbeat", "sub", "unsub", "ack", "progress", "cmd", "other"])
FIELDS = some.sampled_from(["id", "streams", "since", "stream", "seq", "name", "args", "idem", "protocol", "state"])


@given(text=some.text())
@example(text="\ud800")
@example(text='{"type":"heartbeat","type":"heartbeat"}')
@example(text='{"type":"ack","stream":"x","seq":NaN}')
@example(text="[" * 100_000)
@example(text='{"type":"cmd","name":"x","idem":"y","args":' + '{"a":' * 50_000)
def test_any_text_is_a_message_or_has_a_documented_reason(text):
    taken_or_answered(text)


@given(kind=TYPES, fields=some.dictionaries(FIELDS, JSON))
def test_any_fields_make_a_message_or_have_a_documented_reason(kind, fields):
    taken_or_answered(json.dumps({"type": kind, **fields}))


def taken_or_answered(text):
    try:
        assert isinstance(parse(text), messages.MESSAGES)
    except Answered as answer:
        assert answer.code in DOCUMENTED
        assert answer.message


@pytest.mark.parametrize("kind", OURS)
def test_no_bytes_stop_a_server_or_disturb_a_neighbour(own_server, kind):
    chance = random.Random(SEED)
    server = own_server(kind)
    neighbour = dashboard(server)

    print(f"QFLARE_TEST_SEED={SEED}")
    for _ in range(6):
        send_texts(server, chance)
        send_frames(server, chance)
        send_before_the_upgrade(server, chance)

    record_now("system", note("still served"))
    while (frame := json.loads(neighbour.text()))["event"] != "error_notification":
        pass
    assert frame["data"]["title"] == "still served"
    assert "Traceback" not in server.log
    assert "Unhandled" not in server.log


@pytest.mark.parametrize("kind", OURS)
def test_fragments_without_end_are_cut(own_server, kind):
    client = dashboard(own_server(kind))

    client.send(b" ", TEXT, fin=False)
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            client.send(b" " * 16_384, 0, fin=False)

    assert client.close_code() in (1006, 1009)


def send_texts(server, chance):
    """Send messages with letters changed: each is taken, or has a documented answer, or ends it with a known code."""
    client = dashboard(server)
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


def send_frames(server, chance):
    """Break the rules of frames: the connection ends with a code that says why, or goes on."""
    client = dashboard(server)
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
