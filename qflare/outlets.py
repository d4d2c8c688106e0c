"""What waits in this process for the peer of a WebSocket, and what becomes of a peer that does not take it.

Twisted keeps without bound what a peer does not read. An outlet makes the one who sends wait above a limit, until all
is gone; and a peer whose system has taken no byte for some seconds, while something waits for it, is ended.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from django.conf import settings
from twisted.internet.tcp import Server as PlainTCP

from qflare.serving import BUFFER_BYTES, KERNEL_BYTES, LOOKS

logger = logging.getLogger(__name__)

_OPEN = WebSocketServerProtocol.STATE_OPEN


class Watch:
    """Looks at outlets in which something waits, and ends those whose peers take nothing."""

    def __init__(self) -> None:
        self._outlets: dict[Outlet, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def over(self, outlet: "Outlet") -> None:
        """Look at an outlet until nothing waits in it."""
        if outlet not in self._outlets:
            outlet.note(asyncio.get_running_loop().time())
            self._outlets[outlet] = None
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(settings.QFLARE_STALL_SECONDS / LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        now, patience = asyncio.get_running_loop().time(), settings.QFLARE_STALL_SECONDS
        for outlet in list(self._outlets):
            seconds = outlet.note(now)
            if seconds is None:
                del self._outlets[outlet]
            elif seconds > patience:
                del self._outlets[outlet]
                outlet.end(f"took nothing for {patience:g} s")
        if self._outlets:
            self._arm()


class Outlet:
    """One socket's way out: the producer of its transport, which pauses it above a limit and resumes it when empty."""

    def __init__(self, protocol: Any, watch: Watch, lost: Callable[[], None]) -> None:
        """Make an outlet.

        Args:
            protocol: Daphne's protocol of the socket.
            watch: looks at it while something waits.
            lost: is called when its peer is to be ended, before it is.
        """
        self._protocol = protocol
        self._watch = watch
        self._lost = lost
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._plain: Any = None
        """The transport, once it is open, if it is plain TCP; `_send` is then its socket's."""
        self._send: Callable[[bytes], int]
        self._taken: int | None = None
        """How many bytes the peer's system had taken at the last look; None where nothing waited."""
        self._moved_at = 0.0

    def open(self) -> None:
        """Take the place of HTTP's channel as the transport's producer, now that the socket is accepted."""
        transport = self._protocol.transport
        transport.unregisterProducer()
        tcp = tcp_of(transport)
        tcp.bufferSize = BUFFER_BYTES
        tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        transport.registerProducer(self, True)
        if type(transport) is PlainTCP:
            self._plain, self._send = transport, transport.socket.send

    def write(self, frame: bytes) -> bool:
        """Hand a whole frame to the system now, if nothing waits before it; say whether that was done.

        Only over plain TCP. Protocol and transport are passed by, so their buffers must be empty; what the system does
        not take of the frame is left to the transport.
        """
        protocol, transport = self._protocol, self._plain
        if (
            transport is None
            or protocol.state != _OPEN
            or protocol.send_queue
            or transport.dataBuffer
            or transport._tempDataBuffer  # there is no public way to ask whether something waits
            or transport.disconnecting
        ):
            return False
        try:
            sent = self._send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return False  # the peer is gone, which the transport finds out itself
        protocol.sent += len(frame)
        if sent < len(frame):
            transport.write(frame[sent:])
            self._watch.over(self)
        return True

    @property
    def is_open(self) -> bool:
        """Not too much waits."""
        return self._is_empty.is_set()

    async def drained(self) -> None:
        """Return at once, or when all is gone that waits, if it is too much; look at the peer meanwhile."""
        self._watch.over(self)
        await self._is_empty.wait()

    def note(self, now: float) -> float | None:
        """Return for how many seconds the peer's system has taken nothing; None where nothing waits for it."""
        left = waiting_in(self._protocol.transport)
        if left == 0 or self._protocol.state == self._protocol.STATE_CLOSED:
            self._taken = None
            return None
        # What waits may grow while the peer takes something: it is no standstill as long as it takes anything.
        taken = self._protocol.sent - left
        if self._taken is None or taken > self._taken:
            self._moved_at = now
        self._taken = taken
        return now - self._moved_at

    def end(self, why: str) -> None:
        """End the peer at once: no close frame can get through to it."""
        logger.info("%s %s and is ended", self._protocol, why)
        self._lost()
        self._protocol.dropConnection(abort=True)

    # ── what a transport tells its producer ───────────────────────────────────────────────────────────────────────────

    def pauseProducing(self) -> None:
        """Take note that too much waits."""
        self._is_empty.clear()

    def resumeProducing(self) -> None:
        """Take note that all is gone."""
        self._is_empty.set()
        transport = self._protocol.transport
        if getattr(transport, "disconnecting", False):
            transport.unregisterProducer()  # a transport that is to close waits for it

    def stopProducing(self) -> None:
        """Take note that the connection is gone, for which nobody is to wait."""
        self._is_empty.set()


def tcp_of(transport: Any) -> Any:
    """Return the TCP transport itself, below TLS where there is such."""
    return getattr(transport, "transport", transport)


def waiting_in(transport: Any) -> int:
    """Return how many bytes wait for the system to take them."""
    tcp = tcp_of(transport)
    waiting: int = len(tcp.dataBuffer) - tcp.offset + tcp._tempDataLen
    # Above TLS: what is joined until the loop's next turn, and what TLS itself does not take yet.
    joined = getattr(getattr(transport, "_aggregator", None), "_buffer", ())
    return waiting + sum(map(len, joined)) + sum(map(len, getattr(transport, "_appSendBuffer", ())))


def forget_waiting(transport: Any) -> None:
    """Let go of what waits for a peer that is gone.

    Twisted keeps it with the transport, which is garbage in a circle by then: whoever had ended many peers that took
    nothing would have all of it in memory until garbage is collected, which may be long.
    """
    tcp = tcp_of(transport)
    tcp.dataBuffer, tcp.offset = b"", 0
    tcp._tempDataBuffer, tcp._tempDataLen = [], 0
    if tcp is not transport:
        transport._appSendBuffer.clear()  # what is joined above it goes by itself in the loop's next turn
