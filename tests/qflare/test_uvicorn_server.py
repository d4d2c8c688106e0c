"""Our uvicorn's own rules, over real sockets and with an application of the test's own: time passes faster here."""

import asyncio
import contextlib
import logging
import struct
from socket import MSG_PEEK

import pytest

from qflare import uvicorn_server
from qflare.serving import BUFFER_BYTES, CannotListen
from qflare.uvicorn_server import Server, Socket
from tests.realtime.raw import PING, TEXT, RawClient, drop_all
from tests.realtime.sockets import eventually


class Application:
    """Accepts every socket, keeps how it ended, and lets the test send."""

    def __init__(self):
        self.scopes = asyncio.Queue()
        self.endings = asyncio.Queue()
        self.send = None

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] == "http":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        self.send = send
        await self.scopes.put(scope)
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
        await self.endings.put(message["code"])


class Running:
    """A server on the test's loop; blocking clients are used from threads."""

    def __init__(self):
        self.application = Application()
        self.port = 0
        self.server = Server(self.application, host="127.0.0.1", port=0, started=self._started)
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
    (socket,) = (one for one in running.server.server_state.connections if isinstance(one, Socket))
    await eventually(lambda: not socket.writable.is_set())

    assert socket.transport.get_write_buffer_size() <= BUFFER_BYTES + 60_000
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
                client.socket.recv(1, MSG_PEEK)  # only time is to pass
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
    with Server(None, host="[::1]", port=0)._listener() as socket:
        assert socket.getsockname()[0] == "::1"
