"""The sockets of a fleet: all of them on one loop in one thread, each driving a session and a device's work.

asyncio, although `edge` is otherwise synchronous: the socket of a single device takes four threads, and two thousand
threads for five hundred devices would be most of what a load test measures. Nothing but sockets lives on this loop.
"""

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from edge.backoff import Ending, next_attempt, reconnect_delay
from edge.connection import (
    CANNOT_CONNECT,
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    MAX_FRAME_BYTES,
    PING_SECONDS,
    PONG_SECONDS,
    SUBPROTOCOLS,
    barred,
    connected,
    ending,
    lost,
)
from edge.errors import Barred
from edge.http import Server
from edge.notes import Note, Tell
from edge.protocol import client
from edge.session import Action, HangUp, Heard, Send, Session, Welcomed

HANDSHAKES_AT_ONCE = 16
"""A server serves a few at a time; the rest wait here instead of there."""

OPEN_SECONDS = 30.0


class SocketLoop:
    """One loop in one thread for the sockets of many devices."""

    def __init__(self, server: Server, certificates: ssl.SSLContext | None) -> None:
        self.server = server
        self.certificates = certificates
        self.loop = asyncio.new_event_loop()
        self.gate = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self, sockets: "Sequence[Socket]", on_end: Callable[[BaseException], None]) -> None:
        """Connect all sockets and keep them up until `stop`.

        Args:
            on_end: told why, if all have ended before: the last one's `Barred`, or an error nobody expected.
        """
        self._thread = threading.Thread(target=self._run, args=(sockets, on_end), name="edge-sockets", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Close all sockets; they do not come back."""
        if self._thread is not None:
            self.call(self._stopping.set)
            self._thread.join(seconds)

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the loop call this, from any thread; once the loop is closed, nothing is left to be done."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def _run(self, sockets: "Sequence[Socket]", on_end: Callable[[BaseException], None]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._keep_up(sockets, on_end))
        except BaseException as error:
            on_end(error)

    async def _keep_up(self, sockets: "Sequence[Socket]", on_end: Callable[[BaseException], None]) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        stopped.add_done_callback(lambda _: everything.cancel())
        everything = asyncio.gather(*(socket.keep_up() for socket in sockets))
        try:
            reasons = await everything
        except asyncio.CancelledError:
            return
        stopped.cancel()
        on_end(reasons[-1])


class Socket:
    """One device's socket; it is the `Link` of that device's work.

    Args:
        handle: told what was heard, on the loop; must return at once.
    """

    def __init__(self, loop: SocketLoop, session: Session, handle: Callable[[Heard], None], tell: Tell) -> None:
        self._loop = loop
        self._session = session
        self._handle = handle
        self._tell = tell
        self._socket: ClientConnection | None = None
        self._progress: client.Progress | None = None
        self._sending: asyncio.Task[None] | None = None
        self._hang_up_reason = ""
        self._welcomed_at: float | None = None
        self._heartbeat_seconds = HANDSHAKE_SECONDS

    def send_progress(self, message: client.Progress) -> None:
        """Send this when possible; a newer one replaces it until then."""
        self._loop.call(self._note_progress, message)

    def reconnect(self, reason: str) -> None:
        """Close the connection and open another, with back-off."""
        self._loop.call(self._hang_up, reason)

    async def keep_up(self) -> Barred:
        """Connect, listen, and come back, until the server closes the connection for good; say why it did."""
        attempt = 0
        while True:
            how = await self._connect_once()
            delay = reconnect_delay(attempt, how, random.random())
            if delay is None:
                error = barred(self._loop.server, how)
                self._tell(Note("disconnected", f"{error}.", "error", {"code": how.code}))
                return error
            self._tell(lost(self._loop.server, how, delay))
            attempt = next_attempt(attempt, how)
            await asyncio.sleep(delay)

    async def _connect_once(self) -> Ending:
        self._welcomed_at = None
        self._hang_up_reason = ""
        closed: Close | None = None
        try:
            await self._converse()
        except ConnectionClosed as error:
            closed = error.rcvd
        except CANNOT_CONNECT as error:
            return Ending(reason=str(error) or type(error).__name__)
        finally:
            self._socket = None
        return ending(self._session, closed, self._hang_up_reason, self._uptime())

    def _uptime(self) -> float:
        return 0.0 if self._welcomed_at is None else time.monotonic() - self._welcomed_at

    async def _converse(self) -> None:
        opening = connect(
            self._loop.server.socket_url,
            ssl=self._loop.certificates,
            subprotocols=SUBPROTOCOLS,
            compression=None,
            proxy=None,
            open_timeout=OPEN_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PONG_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_FRAME_BYTES,
        )
        await self._loop.gate.acquire()
        is_waited_for = True
        try:
            async with opening as socket:
                self._socket = socket
                await self._carry_out(socket, self._session.open())
                await self._listen(socket, until_welcomed=True)
                self._loop.gate.release()
                is_waited_for = False
                try:
                    await self._listen(socket)
                except asyncio.CancelledError:
                    # The fleet is stopped: a goodbye, not the error that leaving by an exception would tell.
                    await socket.close()
                    raise
        finally:
            if is_waited_for:
                self._loop.gate.release()

    async def _listen(self, socket: ClientConnection, *, until_welcomed: bool = False) -> None:
        due = time.monotonic() + self._heartbeat_seconds
        while not self._hang_up_reason and not (until_welcomed and self._session.welcomed):
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    frame = await socket.recv()
            except TimeoutError:
                if not self._session.welcomed:
                    self._hang_up_reason = "the server did not finish the handshake"
                    return
                due = time.monotonic() + self._heartbeat_seconds
                await self._carry_out(socket, self._session.heartbeat())
                continue
            await self._carry_out(socket, self._session.receive(frame))

    async def _carry_out(self, socket: ClientConnection, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                try:
                    await socket.send(action.text)
                except ConnectionClosed:
                    # Receiving says the same once the frames that came before the end, a farewell too, are read.
                    continue
            elif isinstance(action, HangUp):
                self._hang_up_reason = action.reason
            else:
                if isinstance(action, Welcomed):
                    self._welcomed_at = time.monotonic()
                    self._heartbeat_seconds = action.heartbeat_seconds
                    self._tell(connected(self._loop.server))
                    if self._progress is not None:
                        self._note_progress(self._progress)
                self._handle(action)

    def _note_progress(self, message: client.Progress) -> None:
        self._progress = message
        if self._socket is not None and self._session.welcomed and (self._sending is None or self._sending.done()):
            self._sending = self._loop.loop.create_task(self._send_progress(self._socket))

    async def _send_progress(self, socket: ClientConnection) -> None:
        while self._progress is not None:
            message, self._progress = self._progress, None
            try:
                await socket.send(client.encode_message(message))
            except ConnectionClosed:
                # Best effort: the next connection carries newer ones.
                return

    def _hang_up(self, reason: str) -> None:
        self._hang_up_reason = reason
        if self._socket is not None:
            self._sending = self._loop.loop.create_task(self._socket.close())
