"""One device's socket to its server, in threads of its own: it lives on while the device trains, and always comes back.

What is said and heard is `edge.session`'s affair, and when to come back `edge.backoff`'s; here is only the socket, with
a thread that listens and keeps the heartbeat, and one that sends what may wait.
"""

import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect
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


class Connection:
    """A device's connection: `run` keeps it up until `stop`; the other methods may be called from any thread.

    Args:
        certificates: what wss trusts; None without encryption.
        handle: told what was heard, on the listening thread; must return at once.
    """

    def __init__(
        self,
        *,
        server: Server,
        certificates: ssl.SSLContext | None,
        session: Session,
        handle: Callable[[Heard], None],
        tell: Tell,
    ) -> None:
        self._server = server
        self._certificates = certificates
        self._session = session
        self._handle = handle
        self._tell = tell
        self._stopping = threading.Event()
        self._socket: ClientConnection | None = None
        self._outbox = threading.Condition()
        self._progress: client.Progress | None = None
        self._hang_up_reason = ""
        self._welcomed_at: float | None = None
        self._heartbeat_seconds = HANDSHAKE_SECONDS

    def run(self) -> None:
        """Connect, listen, and come back, until `stop` is called.

        Raises:
            Barred: the server closed the connection for good.
        """
        sender = threading.Thread(target=self._send_outbox, name="edge-sender", daemon=True)
        sender.start()
        attempt = 0
        try:
            while not self._stopping.is_set():
                ending = self._connect_once()
                if self._stopping.is_set():
                    break
                delay = reconnect_delay(attempt, ending, random.random())
                if delay is None:
                    raise barred(self._server, ending)
                self._tell(lost(self._server, ending, delay))
                attempt = next_attempt(attempt, ending)
                self._stopping.wait(delay)
        finally:
            self.stop()
            sender.join()

    def stop(self) -> None:
        """Close the connection and do not come back."""
        self._stopping.set()
        with self._outbox:
            self._outbox.notify()

    def send_progress(self, message: client.Progress) -> None:
        """Send this when possible; a newer one replaces it until then."""
        with self._outbox:
            self._progress = message
            self._outbox.notify()

    def reconnect(self, reason: str) -> None:
        """Close the connection and open another, with back-off."""
        with self._outbox:
            self._hang_up_reason = reason
            self._outbox.notify()

    def _connect_once(self) -> Ending:
        self._welcomed_at = None
        closed: Close | None = None
        try:
            with connect(
                self._server.socket_url,
                ssl=self._certificates,
                subprotocols=SUBPROTOCOLS,
                compression=None,
                proxy=None,
                ping_interval=PING_SECONDS,
                ping_timeout=PONG_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MAX_FRAME_BYTES,
            ) as socket:
                with self._outbox:
                    self._hang_up_reason = ""
                    self._socket = socket
                self._listen(socket)
        except ConnectionClosed as error:
            closed = error.rcvd
        except CANNOT_CONNECT as error:
            return Ending(reason=str(error) or type(error).__name__)
        finally:
            self._socket = None
        return ending(self._session, closed, self._hang_up_reason, self._uptime())

    def _listen(self, socket: ClientConnection) -> None:
        self._carry_out(socket, self._session.open())
        due = time.monotonic() + HANDSHAKE_SECONDS
        while not self._must_close():
            try:
                frame = socket.recv(max(0.0, due - time.monotonic()))
            except TimeoutError:
                if not self._session.welcomed:
                    self._hang_up_reason = "the server did not finish the handshake"
                    return
                self._carry_out(socket, self._session.heartbeat())
                due = time.monotonic() + self._heartbeat_seconds
                continue
            if self._carry_out(socket, self._session.receive(frame)):
                due = time.monotonic() + self._heartbeat_seconds

    def _carry_out(self, socket: ClientConnection, actions: Sequence[Action]) -> bool:
        """Do what is to be done; say whether the server's welcome was among it."""
        is_welcomed = False
        for action in actions:
            if isinstance(action, Send):
                try:
                    socket.send(action.text)
                except ConnectionClosed:
                    # Receiving says the same once the frames that came before the end, a farewell too, are read.
                    continue
            elif isinstance(action, HangUp):
                self._hang_up_reason = action.reason
            else:
                if isinstance(action, Welcomed):
                    is_welcomed = True
                    self._welcomed_at = time.monotonic()
                    self._heartbeat_seconds = action.heartbeat_seconds
                    self._tell(connected(self._server))
                    with self._outbox:
                        self._outbox.notify()
                self._handle(action)
        return is_welcomed

    def _send_outbox(self) -> None:
        """Send progress and close sockets, on a thread of its own: both may wait for the network, no other may."""
        while True:
            with self._outbox:
                self._outbox.wait_for(self._has_something_to_do)
                socket = self._socket
                progress = self._take_progress()
                must_close = self._must_close()
                if must_close:
                    self._socket = None
            if socket is not None and must_close:
                socket.close()
            elif socket is not None and progress is not None:
                try:
                    socket.send(client.encode_message(progress))
                except ConnectionClosed:
                    # Best effort: the next connection carries newer ones.
                    continue
            if self._stopping.is_set():
                return

    def _uptime(self) -> float:
        return 0.0 if self._welcomed_at is None else time.monotonic() - self._welcomed_at

    def _must_close(self) -> bool:
        return self._stopping.is_set() or bool(self._hang_up_reason)

    def _has_something_to_do(self) -> bool:
        can_send = self._progress is not None and self._session.welcomed
        return self._stopping.is_set() or (self._socket is not None and (can_send or self._must_close()))

    def _take_progress(self) -> client.Progress | None:
        if not self._session.welcomed:
            return None
        progress, self._progress = self._progress, None
        return progress


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
