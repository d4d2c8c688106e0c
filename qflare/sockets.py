"""A WebSocket behind Daphne: bounded in both directions, and counted to the byte."""

import asyncio
from functools import partial
from typing import Any

from daphne.ws_protocol import WebSocketProtocol
from django.conf import settings
from twisted.internet.protocol import connectionDone

from edge.protocol.close_codes import CloseCode
from qflare.outlets import Outlet, Watch, forget_waiting, tcp_of, waiting_in
from qflare.serving import CLOSE_SECONDS

MESSAGES_WAITING = 64
"""How many messages of a peer wait for the application before no more are read from it."""
MESSAGES_LEFT = 16
"""How few must be left before it is read again."""


class Socket(WebSocketProtocol):
    """One socket; what it sends goes through its outlet, what it receives waits in its inbox."""

    outlet: Outlet
    closeHandshakeTimeoutCall: Any
    sent = 0
    """Bytes, of whole frames, since the socket is open."""
    received = 0
    _close_was_held_up = 0
    """How often its close frame, or what is before it, was still waiting here when the answer was due."""

    def sendData(self, data: bytes, *args: Any, **kwargs: Any) -> None:
        """Count what is sent."""
        if self.state != self.STATE_CONNECTING:
            self.sent += len(data)
        super().sendData(data, *args, **kwargs)

    def _dataReceived(self, data: bytes) -> None:
        if self.state != self.STATE_CONNECTING:
            self.received += len(data)
        super()._dataReceived(data)

    def onPing(self, payload: bytes) -> None:
        """Answer a ping; not that of a peer that does not read, since its answers would be kept without end."""
        if self.outlet.is_open:
            super().onPing(payload)

    def onCloseHandshakeTimeout(self) -> None:
        """Give up a peer that does not answer a close frame, once nothing waits here that it cannot have seen.

        Over TLS a frame is sent in a later turn of the loop than the one that wrote it. Where a turn takes longer than
        the answer may, that comes no sooner than this.
        """
        may_wait = self._close_was_held_up < settings.QFLARE_STALL_SECONDS / CLOSE_SECONDS
        if may_wait and self.state != self.STATE_CLOSED and waiting_in(self.transport):
            self._close_was_held_up += 1
            loop = asyncio.get_running_loop()
            self.closeHandshakeTimeoutCall = loop.call_later(CLOSE_SECONDS, self.onCloseHandshakeTimeout)
        else:
            super().onCloseHandshakeTimeout()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Tell that the peer is gone, and keep nothing for it."""
        super().connectionLost(reason)
        forget_waiting(self.transport)


class Inbox(asyncio.Queue[dict[str, Any]]):
    """What a socket has received and the application not yet taken; above a limit no more is read."""

    def __init__(self, socket: Socket) -> None:
        super().__init__()
        self._transport: Any = socket.transport
        self._is_paused = False

    def put_nowait(self, item: dict[str, Any]) -> None:
        """Add a message; the server holds its sender back where too many wait."""
        super().put_nowait(item)
        if not self._is_paused and self.qsize() >= MESSAGES_WAITING:
            self._is_paused = True
            self._transport.pauseProducing()

    async def take(self) -> dict[str, Any]:
        """Return the next message, when there is one."""
        item = await self.get()
        if self._is_paused and self.qsize() <= MESSAGES_LEFT:
            self._is_paused = False
            self._transport.resumeProducing()
        return item


def begin_socket(server: Any, socket: Socket, scope: dict[str, Any], watch: Watch) -> Inbox:
    """Call a server's application for a socket as Daphne does, and tell it what this server does for it."""
    inbox = Inbox(socket)
    socket.outlet = Outlet(socket, watch, lost=partial(_record_slow, inbox))
    scope["asgi"] = {"version": "3.0"}
    scope["scheme"] = "ws" if tcp_of(socket.transport) is socket.transport else "wss"
    scope["extensions"] = {
        "qflare.backpressure": {},
        "qflare.frames": {"write": socket.outlet.write},
        "qflare.traffic": {"bytes": lambda: (socket.sent, socket.received)},
    }
    application = server.application(scope, inbox.take, partial(server.handle_reply, socket))
    server.connections[socket]["application_instance"] = asyncio.ensure_future(application)
    return inbox


def _record_slow(inbox: Inbox) -> None:
    """Tell the application why, before it hears that the connection is gone."""
    inbox.put_nowait({"type": "websocket.disconnect", "code": int(CloseCode.TOO_SLOW)})
