"""Devices' sockets to their server: all of a process on one loop in one thread, each driving a session and its device.

A socket lives on while its device trains, and always comes back. What is said and heard is `edge.session`'s affair, and
when to come back `edge.backoff`'s. asyncio, although `edge` is otherwise synchronous: with threads, one would read
while another writes, and a TLS connection bears only one at a time; and two thousand threads, for a fleet of five
hundred, would be most of what a load test measures. Nothing but sockets lives on this loop.
"""

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.frames import Close
from websockets.typing import Subprotocol

from edge.backoff import LOST, Ending, next_attempt, reconnect_delay
from edge.errors import Barred
from edge.http import Server
from edge.notes import Note, Tell
from edge.protocol import PROTOCOL, client, close_codes
from edge.session import Action, HangUp, Heard, Send, Session, Welcomed

PING_SECONDS = 60.0
PONG_SECONDS = 20.0
HANDSHAKE_SECONDS = 30.0
CLOSE_SECONDS = 5.0
MAX_FRAME_BYTES = 1024 * 1024
LONGEST_RETRY_AFTER_SECONDS = 600.0
"""A server that asks for more is not obeyed: it may come back sooner than it thought."""

SUBPROTOCOLS = [Subprotocol(PROTOCOL)]

CANNOT_CONNECT = (OSError, TimeoutError, InvalidHandshake, InvalidURI)
"""What opening a connection raises when it does not work this time."""

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
        self._ended: list[Barred] = []
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
        if self._thread is None:
            self.loop.close()
            return
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
        everything = asyncio.gather(*(self._keep_up_one(socket, len(sockets)) for socket in sockets))
        try:
            await everything
        except asyncio.CancelledError:
            return
        stopped.cancel()
        on_end(self._ended[-1])

    async def _keep_up_one(self, socket: "Socket", number: int) -> None:
        error = await socket.keep_up()
        self._ended.append(error)
        if len(self._ended) < number:  # the last one's is told by who started them
            socket.tell_barred(error)


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

    def tell_barred(self, error: Barred) -> None:
        """Say that the server closed the connection for good."""
        self._tell(Note("disconnected", f"{error}.", "error", {"code": error.code}))

    async def keep_up(self) -> Barred:
        """Connect, listen, and come back, until the server closes the connection for good; say why it did."""
        attempt = 0
        while True:
            how = await self._connect_once()
            delay = reconnect_delay(attempt, how, random.random())
            if delay is None:
                return barred(self._loop.server, how)
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


def ending(session: Session, closed: Close | None, hang_up_reason: str, uptime: float) -> Ending:
    """Tell how a connection ended.

    Args:
        closed: the close frame of the server, if one came.
        hang_up_reason: why this device closed it itself, if it did.
        uptime: seconds since the welcome.
    """
    if hang_up_reason:
        return Ending(reason=hang_up_reason, uptime=uptime)
    farewell = session.farewell
    code = closed.code if closed else LOST
    if farewell is None:
        return Ending(code, (closed.reason if closed else "") or _meaning(code), uptime)
    wait = farewell.retry_after_ms
    retry_after = None if wait is None else min(max(0.0, wait / 1000), LONGEST_RETRY_AFTER_SECONDS)
    # Some servers and proxies swallow the close frame; the farewell says the same.
    code = farewell.code if code == LOST else code
    return Ending(code, farewell.reason or _meaning(code), uptime, retry_after)


def barred(server: Server, ending: Ending) -> Barred:
    """Make the error for a connection that the server closed for good."""
    return Barred(
        f"The server {server.origin} does not let this device connect",
        f"{ending.reason} (close code {ending.code})",
        "Ask the server's operators; if it must be approved first, start it again afterwards.",
        code=ending.code,
    )


def connected(server: Server) -> Note:
    """Say that a connection is up."""
    return Note("connected", f"Connected to {server.origin}.", facts={"server": server.origin})


def lost(server: Server, ending: Ending, delay: float) -> Note:
    """Say that a connection ended or could not be had, and when the next attempt is."""
    text = f"Not connected to {server.origin}: {ending.reason}; trying again in {delay:.1f} s."
    return Note("disconnected", text, "warning", {"code": ending.code, "retry_seconds": delay})


def _meaning(code: int) -> str:
    if code in close_codes.MEANINGS:
        return close_codes.MEANINGS[close_codes.CloseCode(code)]
    return "the connection was lost" if code == LOST else f"it was closed with {code}"
