"""Our uvicorn's own rules, over real sockets and with an application of the test's own: time passes faster here."""

import asyncio
import contextlib
import gc
import logging
import socket
import struct
import threading
import time
import weakref
from pathlib import Path

import pytest

from qflare import uvicorn_server
from qflare.serving import BUFFER_BYTES, CannotListen, Certificate
from qflare.uvicorn_server import Requests, Server, Socket
from tests.realtime.raw import CLOSE, PING, TEXT, RawClient, drop_all
from tests.realtime.sockets import eventually


class Application:
    """Accepts every socket, keeps how it ended, and lets the test send."""

    def __init__(self):
        self.scopes = asyncio.Queue()
        self.endings = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self.bodies = asyncio.Queue()
        """How each request's body ended."""
        self.answers = {}
        """Other than `ok`, by path."""
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.send = None

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] == "http":
            await self.reads.wait()
            while (message := await receive()).get("more_body"):
                pass
            self.bodies.put_nowait(message["type"])
            answer = self.answers.get(scope["path"], b"ok")
            headers = [(b"content-length", str(len(answer)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
            return
        await receive()
        await send({"type": "websocket.accept"})
        self.send = send
        await self.scopes.put(scope)
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
        await self.may_end.wait()
        await self.endings.put(message["code"])


class Running:
    """A server on the test's loop; blocking clients are used from threads."""

    def __init__(self, certificate=None):
        self.application = Application()
        self.port = 0
        self.server = Server(self.application, host="127.0.0.1", port=0, certificate=certificate, started=self._started)
        self.sockets = [self.server._listener()]

    def _started(self, port):
        self.port = port

    async def __aenter__(self):
        self.server.config.load()
        self.server.lifespan = self.server.config.lifespan_class(self.server.config)
        await self.server.startup(self.sockets)
        await self.server.on_tick(0)
        return self

    async def __aexit__(self, *_):
        drop_all()
        await asyncio.wait_for(self.server.shutdown(self.sockets), 30)
        assert self.server.server_state.tasks == set()

    async def connect(self, **options):
        client = await asyncio.to_thread(RawClient, self.port, "/ws", **options)
        self.scope = await self.application.scopes.get()
        return client

    @property
    def write(self):
        return self.scope["extensions"]["qflare.frames"]["write"]


@pytest.fixture
async def running():
    async with Running() as running:
        yield running


def frame_of(text):
    data = text.encode()
    return struct.pack("!BBH", 0x81, 126, len(data)) + data if len(data) > 125 else bytes((0x81, len(data))) + data


def certificate_of(certificates):
    return Certificate(Path(certificates.chain), Path(certificates.key))


def peer_that_asked(port, asked, receive_buffer, trust=None):
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.settimeout(30)
    peer.connect(("127.0.0.1", port))
    if trust:
        peer = trust.wrap_socket(peer, server_hostname="localhost")
    peer.sendall(asked)
    return peer


async def test_a_ready_frame_goes_out_as_it_is(running):
    client = await running.connect()

    assert running.write(frame_of("hello"))

    assert await asyncio.to_thread(client.receive) == (TEXT, b"hello")


async def test_a_ready_frame_is_not_taken_while_something_waits_or_after_the_end(running):
    client = await running.connect(receive_buffer=4096)
    big, taken = frame_of("x" * 60_000), 0
    while running.write(big):
        taken += 1

    # What was handed over comes whole and in order, and then it goes on.
    await asyncio.to_thread(lambda: [client.receive() for _ in range(taken)])
    await eventually(lambda: running.write(frame_of("last")))
    assert await asyncio.to_thread(client.receive) == (TEXT, b"last")

    await running.application.send({"type": "websocket.close", "code": 4001})
    assert not running.write(frame_of("too late"))


async def test_who_sends_waits_while_the_peer_does_not_read_and_little_is_kept(running):
    client = await running.connect(receive_buffer=4096)
    text = "x" * 50_000

    async def send_all():
        for _ in range(100):
            await running.application.send({"type": "websocket.send", "text": text})

    sending = asyncio.create_task(send_all())
    (end,) = (one for one in running.server.server_state.connections if isinstance(one, Socket))
    await eventually(lambda: not end.writable.is_set())

    assert end.transport.get_write_buffer_size() <= BUFFER_BYTES + 60_000
    await asyncio.to_thread(lambda: [client.receive() for _ in range(100)])
    await asyncio.wait_for(sending, 30)


async def test_a_peer_that_takes_nothing_is_ended_as_too_slow(running, settings, caplog):
    settings.QFLARE_STALL_SECONDS = 0.2
    caplog.set_level(logging.INFO, "qflare.uvicorn_server")
    await running.connect(receive_buffer=4096)

    while running.write(frame_of("x" * 60_000)):
        pass  # far below the limit at which a sender waits: it is enough that something does

    assert await asyncio.wait_for(running.application.endings.get(), 30) == 4008
    assert "took nothing for 0.2 s" in caplog.text


async def test_a_slow_peer_is_no_stalled_one_even_where_more_comes_than_it_takes(running, settings):
    settings.QFLARE_STALL_SECONDS = 0.3
    client = await running.connect(receive_buffer=4096)
    until = asyncio.get_running_loop().time() + 1.5

    while asyncio.get_running_loop().time() < until:
        await asyncio.wait_for(running.application.send({"type": "websocket.send", "text": "x" * 30_000}), 30)
        await asyncio.to_thread(client.receive)

    assert running.application.endings.empty()


async def test_whoever_says_something_is_not_pinged_and_who_is_silent_is(running, monkeypatch, settings):
    settings.QFLARE_PING_SECONDS = 0.3
    monkeypatch.setattr(running.server.config, "ws_ping_interval", 0.3)
    client = await running.connect()

    def talk():
        for _ in range(20):
            client.send("{}")
            opcode, _ = client.receive()
            assert opcode == TEXT
            client.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.socket.recv(1, socket.MSG_PEEK)  # only time is to pass
            client.socket.settimeout(60)
        return client.receive()

    assert (await asyncio.to_thread(talk))[0] == PING


async def test_a_peer_that_does_not_answer_a_ping_is_ended_though_something_waits_for_it(
    running, monkeypatch, settings
):
    settings.QFLARE_PING_SECONDS = 0.1
    monkeypatch.setattr(running.server.config, "ws_ping_interval", 0.1)
    monkeypatch.setattr(running.server.config, "ws_ping_timeout", 0.1)
    await running.connect(receive_buffer=4096)

    while running.write(frame_of("x" * 60_000)):
        pass

    assert await asyncio.wait_for(running.application.endings.get(), 30) == 1006


async def test_fragments_without_end_are_cut(running, monkeypatch):
    monkeypatch.setattr(uvicorn_server, "MAX_FRAGMENTS", 10)
    client = await running.connect()

    def send():
        client.send("", TEXT, fin=False)
        for _ in range(20):
            client.send("", 0, fin=False)
        return client.close_code()

    assert await asyncio.to_thread(send) == 1009
    assert await running.application.endings.get() == 1009


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
async def test_who_answers_a_close_and_does_not_hang_up_is_ended_though_the_consumer_leaves_after_the_answer(
    is_encrypted, certificates, monkeypatch
):
    monkeypatch.setattr(uvicorn_server, "CLOSE_SECONDS", 0.5)
    async with Running(certificate_of(certificates) if is_encrypted else None) as running:
        client = await running.connect(trust=is_encrypted and certificates.trust)
        (end,) = (one for one in running.server.server_state.connections if isinstance(one, Socket))
        running.application.may_end.clear()
        await running.application.send({"type": "websocket.close", "code": 4001})
        assert await asyncio.to_thread(client.close_code) == 4001
        await asyncio.to_thread(client.send, (4001).to_bytes(2, "big"), CLOSE)
        await eventually(end.transport.is_closing)

        running.application.may_end.set()
        await running.application.endings.get()

        assert end in running.server.server_state.connections or not is_encrypted  # TLS waits for the peer's last word
        end.shutdown()
        await eventually(lambda: not running.server.server_state.connections)


async def test_a_consumer_that_fails_closes_with_1011(running, caplog):
    client = await running.connect()

    client.send(b"\0", 2)  # the application knows no bytes

    assert await asyncio.to_thread(client.close_code) == 1011
    assert "the application failed" in caplog.text


async def test_who_never_asks_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(uvicorn_server, "IDLE_SECONDS", 0.2)
    async with Running() as running:
        for beginning in (b"", b"GET / HTTP/1.1\r\nHost: a"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(beginning)

            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()


async def test_who_asks_in_pieces_is_answered(running):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for piece in (b"GET / HT", b"TP/1.1\r\nHost: a\r\n", b"\r\n"):
        writer.write(piece)
        await writer.drain()

    head = await reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert b"server: qflare" in head
    assert await reader.readexactly(2) == b"ok"
    writer.close()


async def test_who_says_no_more_of_a_body_is_hung_up_on(running, settings):
    settings.QFLARE_TRANSFER_SECONDS = 0.2
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")

    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 30) == b""
    assert await asyncio.wait_for(running.application.bodies.get(), 30) == "http.disconnect"
    writer.close()


async def test_who_is_kept_from_sending_a_body_is_not_hung_up_on(running, settings, monkeypatch):
    settings.QFLARE_TRANSFER_SECONDS = 0.1
    missed, miss = [], Requests._miss_body
    monkeypatch.setattr(Requests, "_miss_body", lambda self: (missed.append(self), miss(self)))
    running.application.reads.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
    await eventually(lambda: len(missed) > 3)

    running.application.reads.set()

    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)).startswith(b"HTTP/1.1 200")
    assert await running.application.bodies.get() == "http.request"
    writer.close()


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("last", ["", "Connection: close\r\n"], ids=["keep-alive", "close"])
async def test_who_takes_nothing_of_an_answer_is_ended_though_the_application_has_done_its_part(
    is_encrypted, last, certificates, settings, caplog
):
    settings.QFLARE_TRANSFER_SECONDS = 0.2
    caplog.set_level(logging.INFO, "qflare.uvicorn_server")
    async with Running(certificate_of(certificates) if is_encrypted else None) as running:
        running.application.answers["/big"] = bytes(32 * 1024 * 1024)
        asked = f"GET /big HTTP/1.1\r\nHost: a\r\n{last}\r\n".encode()
        peer = await asyncio.to_thread(peer_that_asked, running.port, asked, 4096, is_encrypted and certificates.trust)

        assert await asyncio.wait_for(running.application.bodies.get(), 30) == "http.request"
        await eventually(lambda: not running.server.server_state.connections)
        peer.close()

    assert "took nothing of an answer for 0.2 s" in caplog.text


async def test_who_takes_an_answer_slowly_gets_all_of_it(running, settings):
    settings.QFLARE_TRANSFER_SECONDS = 0.5
    size = 8 * 1024 * 1024
    running.application.answers["/big"] = bytes(size)

    def take():
        peer = peer_that_asked(running.port, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 16384)
        taken, until = 0, time.monotonic() + 2
        while time.monotonic() < until:  # four times the patience, a little of it at a time
            taken += len(peer.recv(16384))
            threading.Event().wait(0.05)
        while taken < size:
            piece = peer.recv(1024 * 1024)
            assert piece, f"it was ended after {taken}"
            taken += len(piece)
        peer.close()

    await asyncio.to_thread(take)


async def test_of_a_connection_that_is_reset_between_requests_nothing_is_kept(running):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"ok")
    (requests,) = map(weakref.ref, running.server.server_state.connections)
    assert requests().timeout_keep_alive_task is not None
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    writer.transport.abort()

    await eventually(lambda: gc.collect() >= 0 and requests() is None)


async def test_at_the_end_a_socket_that_the_application_does_not_close_is_told_to_come_back():
    async with Running() as running:
        client = await running.connect()
        closing = asyncio.create_task(asyncio.to_thread(client.close_code))
        await running.server.shutdown(running.sockets)

        assert await closing == 4001
        running.server.lifespan = running.server.config.lifespan_class(running.server.config)
        await running.server.lifespan.startup()


def test_an_address_that_is_taken_is_told():
    taken = Server(None, host="127.0.0.1", port=0)._listener()
    with taken, pytest.raises(CannotListen, match="in use"):
        Server(None, host="127.0.0.1", port=taken.getsockname()[1]).run()


def test_both_families_are_listened_to_under_their_names():
    with Server(None, host="[::1]", port=0)._listener() as listener:
        assert listener.getsockname()[0] == "::1"
