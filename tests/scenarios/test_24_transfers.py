"""Models on their way in and out, while broadcasts go on: they cost what is bounded, and leave nothing behind."""

import contextlib
import socket
from base64 import b64encode
from pathlib import Path

import pytest
import torch
from django.utils import timezone

from edge.identity import UPDATE_CONTEXT
from edge.protocol.http import MANIFEST_HEADER, SIGNATURE_HEADER
from edge.tasks import TASKS
from edge.wire import encode
from fl import devices, files
from fl.models import Stream, Update
from fl.payloads import update_url, weights_url
from qflare.uploads import CHUNK_BYTES
from tests.builders import fleet, started_run, step
from tests.fl.threads import eventually
from tests.scenarios.crowd import Crowd
from tests.scenarios.memory import MB, Level
from tests.scenarios.table import scenario
from tests.scenarios.wide_task import Wide

PIECES = 100
SLICE = 50_000
READERS, READ_AT_ONCE = 5, 10_000
GIVE_UP_SECONDS = 120
SETTINGS = {
    "QFLARE_TASKS": "tests.scenarios.wide_task:Wide",
    "QFLARE_DEVICE_TOKEN_SECONDS": "86400",
    "QFLARE_LEASE_SECONDS": "600",
}


@pytest.fixture
def wide(monkeypatch):
    """The task with large weights, in the test's own process."""
    monkeypatch.setitem(TASKS, Wide.name, Wide)


class Transfers:
    """A round of a large model, and its devices: each has an assignment and a way to say that it sends an update."""

    def __init__(self, server, count):
        now = timezone.now()
        self.server = server
        self.devices = fleet(count, task=Wide.name, now=now)
        self.run = started_run(now, task=Wide.name, cohort_size=count, quorum=2, deadline_seconds=86_000)
        step(self.run, now)
        self.base = self.devices[0].assignment().round.base_model

    def head(self, device, data, length):
        """Return the head of an update's request, which says that so many bytes follow."""
        manifest = device.manifest(data)
        headers = {
            MANIFEST_HEADER: b64encode(manifest).decode(),
            SIGNATURE_HEADER: b64encode(device.key.sign(manifest, UPDATE_CONTEXT)).decode(),
            "Content-Length": length,
            **bearer(device),
        }
        return head("PUT", update_url(device.assignment().pk), headers)

    def begin(self, device, data, length):
        """Begin to send an update."""
        peer = socket.create_connection(("127.0.0.1", self.server.port), timeout=GIVE_UP_SECONDS)
        peer.sendall(self.head(device, data, length))
        return peer

    def incoming(self):
        """Return the files that are still on their way."""
        return list(files.incoming_folder().glob("*"))


class Reader:
    """Somebody who fetches the round's model, and reads only as much as the test lets it."""

    def __init__(self, transfers, device):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(GIVE_UP_SECONDS)
        self.socket.connect(("127.0.0.1", transfers.server.port))
        self.socket.sendall(head("GET", weights_url(transfers.base.digest), bearer(device)))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        self.status = int(answer.split(b" ", 2)[1])
        self.body = b""

    def read(self, number):
        while number:
            part = self.socket.recv(number)
            assert part, "the download broke off"
            self.body += part
            number -= len(part)

    def leave(self):
        self.socket.close()


@scenario(24, "a 200 MB update and five slow downloads, during broadcasts, cost less than 50 MB")
def test_large_models_come_and_go_within_bounds_while_everybody_is_told(stand, wide, settings):
    """Readers take 10 KB for each 2 MB that are sent, broadcasts come in between: no clock decides what overlaps."""
    server = stand.start(**SETTINGS)
    settings.MEDIA_ROOT = server.folder / "files"
    neighbours = Crowd(server, 5, cookie=stand.cookie())
    transfers = Transfers(server, 3)
    sender, greedy, _ = transfers.devices
    data = encode({"weight": torch.full((10_000, 5_000), 0.001)})
    refused = transfers.begin(greedy, b"", 10**12)
    assert status_of(refused) == 413  # which also lets the server learn the model's shapes
    assert ended(refused)
    refused.close()
    peers, level = server.sockets(), Level(server)

    fetching = [device for device in transfers.devices for _ in range(2)][:READERS]
    readers = [Reader(transfers, device) for device in fetching]
    sending = transfers.begin(sender, data, len(data))
    size = len(data) // PIECES + 1
    for piece in range(PIECES):
        sending.sendall(data[piece * size : (piece + 1) * size])
        for reader in readers:
            reader.read(READ_AT_ONCE)
        if piece % 10 == 5:
            # What was sent may still be on its way within the system.
            eventually(lambda: len(transfers.incoming()) == 1)
            server.ask("record", stream="system", count=100, size=300)
            neighbours.wait_for("system", Stream.objects.get(name="system").head)

    assert status_of(sending) == 200
    sending.close()
    assert Update.objects.get(state="accepted").size == len(data)
    assert level.rise < 50 * MB
    neighbours.assert_exact()
    with files.open_file(transfers.base.file) as file:
        beginning = file.read(PIECES * READ_AT_ONCE)
    for reader in readers:
        assert (reader.status, reader.body) == (200, beginning)
        reader.leave()
    eventually(lambda: open_in(server) == (peers, 0))
    assert transfers.incoming() == []


@scenario(24, "an update that breaks off, or lies about its length, leaves no file behind")
def test_an_update_that_breaks_off_or_lies_about_its_length_leaves_nothing_behind(stand, wide, settings):
    server = stand.start(**SETTINGS, QFLARE_TRANSFER_SECONDS="5")
    settings.MEDIA_ROOT = server.folder / "files"
    neighbours = Crowd(server, 2, cookie=stand.cookie())
    transfers = Transfers(server, 4)
    cut, short, long, _ = transfers.devices
    part = b"x" * 5 * MB
    peers = server.sockets()

    # In turns: who says nothing for long is not waited for, and the server may take its time with the other.
    cutting, waiting = (transfers.begin(device, part, 200 * MB) for device in (cut, short))
    for _ in range(0, len(part), SLICE):
        for peer in (cutting, waiting):
            peer.sendall(part[:SLICE])

    def are_both_written():
        for peer in (cutting, waiting):
            peer.sendall(b"x")
        # What does not fill a chunk yet waits to be written.
        return [path.stat().st_size > len(part) - CHUNK_BYTES for path in transfers.incoming()] == [True, True]

    eventually(are_both_written)
    cutting.close()
    overflowing = transfers.begin(long, part, len(part))
    with contextlib.suppress(ConnectionError):
        overflowing.sendall(part + b"GET / HTTP/1.1\r\n\r\n" + part)
    server.ask("record", stream="system", count=100, size=300)

    assert status_of(overflowing) == 422
    assert ended(waiting)  # it says no more, and nobody waits for it without end
    assert ended(overflowing)
    waiting.close()
    overflowing.close()
    eventually(lambda: transfers.incoming() == [])
    eventually(lambda: open_in(server) == (peers, 0))
    assert not Update.objects.filter(state="accepted").exists()
    assert cut.assignment().state == short.assignment().state == "assigned"
    neighbours.assert_exact()


def open_in(server):
    """Return how many sockets of clients a server has open, and how many files of weights."""
    weights = str(server.folder / "files")
    files_of_weights = 0
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            files_of_weights += str(entry.readlink()).startswith(weights)
    return server.sockets(), files_of_weights


def bearer(device):
    token = devices.access_token(device=device.device, now=timezone.now())
    return {"Authorization": f"Bearer {token.token}"}


def head(method, path, headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(peer):
    """Read an answer up to its status."""
    answer = b""
    while b"\r\n" not in answer:
        part = peer.recv(4096)
        assert part, "the server ended the connection without an answer"
        answer += part
    return int(answer.split(b" ", 2)[1])


def ended(peer):
    """Read until the server has ended the connection, orderly or not."""
    with contextlib.suppress(ConnectionError):
        while peer.recv(65536):
            pass
    return True
