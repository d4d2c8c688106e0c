"""The other web server: uvicorn, whose sockets keep to the same rules as those of `qflare.server`.

Everything is done in methods that uvicorn's classes offer for overriding; no other package is changed. A method that is
written anew, since the one of uvicorn cannot be called for a part of what it does, says so.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import h11
from django.conf import settings
from uvicorn import Config
from uvicorn import Server as UvicornServer
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from edge.protocol.close_codes import CloseCode
from qflare.serving import (
    BACKLOG,
    BUFFER_BYTES,
    CLOSE_SECONDS,
    KERNEL_BYTES,
    LOOKS,
    MESSAGE_BYTES,
    CannotListen,
    Certificate,
    kept_by_system,
)
from realtime.process import running_process

logger = logging.getLogger(__name__)

IDLE_SECONDS = 60
"""How long a connection may wait for its first request or its next, as on Daphne."""
MAX_FRAGMENTS = 64 * 1024
"""Into how many pieces a message may be cut: empty ones would otherwise be kept without end."""


class Server(UvicornServer):
    """Uvicorn for one address."""

    def __init__(
        self,
        application: Any,
        *,
        host: str,
        port: int,
        certificate: Certificate | None = None,
        started: Callable[[int], None] | None = None,
        ending: Callable[[], None] | None = None,
    ) -> None:
        """Make a server.

        Args:
            certificate: makes it speak TLS, and nothing else.
            started: is called with the port once the server listens.
            ending: is called when the end begins.
        """
        config = Config(
            application,
            loop="asyncio",
            http=Requests,
            ws=Socket,
            ws_max_size=MESSAGE_BYTES,
            ws_ping_interval=settings.QFLARE_PING_SECONDS,
            ws_ping_timeout=settings.QFLARE_PONG_SECONDS,
            ws_per_message_deflate=False,
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            # Who a proxy says that it speaks for is the application's affair, the same behind both servers.
            proxy_headers=False,
            server_header=False,
            headers=[("server", "qflare")],
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_SECONDS,
            ssl_certfile=certificate.chain if certificate else None,
            ssl_keyfile=certificate.key if certificate else None,
        )
        super().__init__(config)
        self._host = host.strip("[]")
        self._port = port
        self._started = started
        self._ending = ending

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT.

        Args:
            sockets: listen on these instead of the server's address.

        Raises:
            CannotListen: the address is taken, or not ours.
        """
        super().run(sockets or [self._listener()])

    def _listener(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        both = family is socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            return socket.create_server((self._host, self._port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            raise CannotListen(error.strerror or str(error)) from error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self._started is not None and sockets:
            self._started(sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; unlike uvicorn's, the signal is not raised again afterwards, so that the exit code is 0."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nobody new, tell every socket, let every consumer leave, and only then cancel what is left.

        Written anew: uvicorn's closes sockets with 1012 before the application is asked, and waits without end for
        those whose peers do not read.
        """
        if self._ending is not None:
            self._ending()
        for listener in self.servers:
            listener.close()
        process = running_process()
        if process is not None:
            await process.close_all()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await _all_done(self.server_state.tasks)
        await self.lifespan.shutdown()


async def _all_done(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for tasks; cancel those that take longer than they may."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CLOSE_SECONDS / 4)


class Requests(H11Protocol):
    """HTTP on one connection, which ends when a request never begins or does not go on, or no answer is taken."""

    cycle: Any
    """The newest request; None before the first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Expect the head of a request."""
        super().connection_made(transport)
        self._tcp = _tcp_of(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._taken_at = 0.0
        self._untaken = 0
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read requests, and note whether the head of one is still to be finished."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._have_head()
        elif self._head_timer is None:
            self._expect_head()
        self._expect_body()
        if self._answer_timer is None and self.transport.get_protocol() is self:
            self._watch_answers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._have_head()
        self._have_body()
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        self._unset_keepalive_if_required()  # which uvicorn leaves running after a reset, and with it all that is here
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End when the answer is out; one that is closing already is left to it (see `_Counted.close`)."""
        if not self.transport.is_closing():
            super().shutdown()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expect_body(self) -> None:
        self._have_body()
        # What has become a WebSocket looks as if its request had a body.
        if self.conn.their_state is h11.SEND_BODY and self.transport.get_protocol() is self:
            self._body_timer = self.loop.call_later(settings.QFLARE_TRANSFER_SECONDS, self._miss_body)

    def _miss_body(self) -> None:
        if self.flow.read_paused:
            self._expect_body()  # it is held back from here, which is not the peer's fault
        else:
            self.transport.abort()

    def _have_body(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _watch_answers(self) -> None:
        self._answer_timer = self.loop.call_later(settings.QFLARE_TRANSFER_SECONDS / LOOKS, self._look)

    def _look(self) -> None:
        """End a peer that has taken no byte for long of what waits for it; look again while anything is to come."""
        self._answer_timer = None
        if self.transport.get_protocol() is not self:
            return  # it has become a WebSocket, or is about to hear that the peer is gone
        now, patience = self.loop.time(), settings.QFLARE_TRANSFER_SECONDS
        waiting = _waiting_in(self.transport, self._tcp)
        # With what the system keeps: of that it makes no room for long, however steadily a slow peer takes it.
        untaken = waiting + kept_by_system(self.transport.get_extra_info("socket").fileno()) if waiting else 0
        if not waiting or untaken != self._untaken:  # an application cannot add to it for long
            self._untaken, self._taken_at = untaken, now
        if waiting and now - self._taken_at >= patience:
            logger.info("the peer %s took nothing of an answer for %g s and is ended", self.client, patience)
            self.transport.abort()
        elif waiting or (self.cycle is not None and not self.cycle.response_complete):
            self._watch_answers()


class Socket(WebSocketsSansIOProtocol):
    """One WebSocket: what waits for its peer is bounded, and a peer that takes nothing, or never hangs up, is ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what waits for the peer, here and in the system."""
        super().connection_made(transport)
        self._out = self.transport
        """The transport itself; what uvicorn writes to the other is counted on its way."""
        self.transport = cast("asyncio.Transport", _Counted(self._out, self._count))
        self.sent = self.received = 0
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self._tcp = _tcp_of(self._out)
        self._is_plain = self._tcp is self._out
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self.close_timeout = CLOSE_SECONDS
        self._gone = self.loop.create_future()
        self._heard_at = self.loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._taken_at = 0.0
        self._left = 0
        self._added = 0

    def handle_connect(self, event: Request) -> None:
        """Tell the application what this server does for it."""
        super().handle_connect(event)
        self.received = 0  # only frames are counted
        if not self.close_sent:  # the request was one for a WebSocket
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions["qflare.backpressure"] = {}
            extensions["qflare.frames"] = {"write": self.write_frame}
            extensions["qflare.traffic"] = {"bytes": lambda: (self.sent, self.received)}

    async def run_asgi(self) -> None:
        """Let the application serve the socket to its end; return when the peer is gone.

        Written anew: uvicorn's reports a consumer that is cancelled as an error, and never ends the connection of a
        peer that takes nothing.
        """
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("the application failed at %s", self)
            self.send_500_response()
            self._close(1011)
        finally:
            if self.close_timer is None and not self.disconnected:
                self.transport.close()
                self._abort_later()
        await self._gone

    # ── what is sent ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Any) -> None:
        """Send for the application, and let it wait while the peer does not keep up."""
        if message["type"] != "websocket.send" or not self.handshake_complete or self.close_sent:
            await super().send(message)
            if message["type"] == "websocket.accept":
                self.sent = 0
            if self.close_timer is not None:
                self._abort_later()
            return
        await self.writable.wait()
        text = message.get("text")
        try:
            if text is None:
                self.conn.send_binary(message["bytes"])
            else:
                self.conn.send_text(text.encode())
        except InvalidState as error:
            raise ClientDisconnected from error
        self._write(b"".join(self.conn.data_to_send()))

    def write_frame(self, frame: bytes) -> bool:
        """Hand a whole frame to the system now, if nothing waits before it; say whether that was done.

        Only over plain TCP. What the system does not take of it is left to the transport.
        """
        if (
            not self._is_plain
            or self.conn.state is not State.OPEN
            or self.close_sent
            or self._out.is_closing()
            or self._out.get_write_buffer_size()
        ):
            return False
        self._write(frame)
        return True

    def _write(self, data: bytes) -> None:
        self.sent += len(data)
        self._out.write(data)
        if self._watch is not None:
            self._added += len(data)
        elif left := self._waiting():
            self._taken_at, self._left, self._added = self.loop.time(), left, 0
            self._watch_on()

    def _waiting(self) -> int:
        """Return how many bytes wait for the system to take them, above TLS and below it."""
        return _waiting_in(self._out, self._tcp)

    def _count(self, sent: int) -> None:
        self.sent += sent

    def _watch_on(self) -> None:
        self._watch = self.loop.call_later(settings.QFLARE_STALL_SECONDS / LOOKS, self._look)

    def _look(self) -> None:
        self._watch = None
        left, now = self._waiting(), self.loop.time()
        if not left or self.disconnected:
            return
        if left < self._left + self._added:
            self._taken_at = now
        self._left, self._added = left, 0
        if now - self._taken_at > settings.QFLARE_STALL_SECONDS:
            self._end(CloseCode.TOO_SLOW, f"took nothing for {settings.QFLARE_STALL_SECONDS:g} s")
        else:
            self._watch_on()

    # ── what is received ──────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Read frames; what still comes from a peer that broke the protocol is thrown away until it hangs up."""
        self.received += len(data)
        if self.conn.parser_exc is None:
            self._heard_at = self.loop.time()
            super().data_received(data)

    def handle_cont(self, event: Frame) -> None:
        """Take a further piece of a message."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._fail(1009, "too many fragments")

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application, unless it is text that is no UTF-8, which is the peer's error."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
        super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer a ping; not that of a peer that does not read, since its answers would be kept without end."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set() and not self.close_sent:
            self._write(pong)

    def send_keepalive_ping(self) -> None:
        """Ask whether the peer is still there, if it has said nothing for as long as this takes."""
        left = settings.QFLARE_PING_SECONDS - (self.loop.time() - self._heard_at)
        if left > 0:
            self.ping_timer = self.loop.call_later(left, self.send_keepalive_ping)
        else:
            super().send_keepalive_ping()

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def handle_parser_exception(self) -> None:
        """Tell a peer that broke the protocol by the code that says how.

        Written anew: uvicorn's closes the connection at once, and where the peer is still sending, the system then
        throws the close frame away.
        """
        if self.close_sent:
            return  # it is on its way out already
        told = self.conn.close_sent
        self.queue.put_nowait(_disconnect(told.code if told else 1006))
        self._wrote_close()

    def keepalive_timeout(self) -> None:
        """Give up a peer that does not answer pings; uvicorn alone would wait until it takes what waits for it."""
        super().keepalive_timeout()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that the peer left without a word, unless it knows better by now."""
        self.queue.put_nowait(_disconnect(1006))
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)
        if not self._gone.done():  # who waited may have been cancelled, and this with it
            self._gone.set_result(None)

    def shutdown(self) -> None:
        """End what the application has not ended: a socket that is not open yet, or a peer that does not read."""
        if self._waiting() or not self.handshake_complete:
            self.queue.put_nowait(_disconnect(1006))
            self.transport.abort()
        else:
            self._close(CloseCode.RESTARTING)

    def _close(self, code: int) -> None:
        """Close on the server's own account, unless the socket is closed already."""
        if self.conn.state is State.OPEN and not self.close_sent:
            self.conn.send_close(code)
            self.queue.put_nowait(_disconnect(code))
            self._wrote_close()

    def _wrote_close(self) -> None:
        """Send the close frame, and read on, but not for long: the peer is to answer and to hang up."""
        self.close_sent = True
        self._write(b"".join(self.conn.data_to_send()))
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._abort_later()

    def _abort_later(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _end(self, code: int, why: str) -> None:
        """End the peer at once: no close frame can get through to it."""
        logger.info("%s %s and is ended", self, why)
        self.queue.put_nowait(_disconnect(code))
        self.transport.abort()

    def __str__(self) -> str:
        """Name the peer, for the log."""
        return f"the peer {self.client[0]}:{self.client[1]}" if self.client else "a peer"


class _Counted:
    """A transport whose bytes are counted, whoever writes them, and that is closed once, whoever closes it."""

    def __init__(self, transport: asyncio.Transport, count: Callable[[int], None]) -> None:
        self._transport = transport
        self._count = count

    def write(self, data: bytes) -> None:
        self._count(len(data))
        self._transport.write(data)

    def close(self) -> None:
        # At a second close asyncio's TLS forgets the connection: it can neither be asked for anything then nor aborted.
        if not self._transport.is_closing():
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _tcp_of(transport: asyncio.Transport) -> asyncio.Transport:
    """Return the TCP transport itself, below TLS where there is such; there is no public way to it."""
    tls = getattr(transport, "_ssl_protocol", None)
    return transport if tls is None else cast("asyncio.Transport", tls._transport)


def _waiting_in(transport: asyncio.Transport, tcp: asyncio.Transport) -> int:
    """Return how many bytes wait for the system to take them, above TLS and below it.

    Args:
        tcp: what `_tcp_of` returned at the beginning; once the peer is gone there is no way to it any more.
    """
    waiting = transport.get_write_buffer_size()
    return waiting if tcp is transport else waiting + tcp.get_write_buffer_size()


def _disconnect(code: int) -> Any:
    return {"type": "websocket.disconnect", "code": int(code)}
