"""HTTP on Daphne with bodies that pass through: the application begins at the headers, and either side waits.

Daphne by itself keeps a request's body whole, in memory or in a temporary file, before the application hears of it, and
an answer's without bound. Here a request begins when its headers are there, whatever it then does with the body; bytes
wait in a `Body`, which holds the sender back above a limit; and whoever sends an answer waits until the peer took it.
"""

import asyncio
import logging
from collections import deque
from functools import partial
from io import BytesIO
from typing import Any

from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.web import http

from qflare.outlets import tcp_of, waiting_in
from qflare.serving import LOOKS, kept_by_system

logger = logging.getLogger(__name__)

WAITING_BYTES = 512 * 1024
"""How much of a body may wait for the application before the sender is held back."""
READ_BYTES = 256 * 1024
"""What is read from a sender's socket at once while its body comes, and what may wait for a reader unsent."""
SMALL_BYTES = 64 * 1024
"""Pieces that have no more than this together are joined; to copy larger ones costs more than to call once for each."""


class Body:
    """A request's body on its way from the transport to the application; a bounded amount of it waits.

    Daphne takes it for the queue of messages to the application.
    """

    def __init__(self, channel: "Channel") -> None:
        self._channel: Channel | None = channel
        self._pieces = deque[bytes]()
        self._waiting = 0
        self._is_held_back = False
        self._is_told = False
        self._news = asyncio.Event()
        self.awaits_go_ahead = False
        """Whether the sender wants to hear that its body is wanted (`Expect: 100-continue`)."""
        self.is_complete = False
        self.is_cut = False
        """Whether the rest of it will never come."""

    async def get(self) -> dict[str, Any]:
        """Return the next message of the application's `receive`: what has come, or the end of the connection."""
        while True:
            if self._pieces or (self.is_complete and not self._is_told):
                return self._next()
            if self.is_cut:
                return {"type": "http.disconnect"}
            if self.awaits_go_ahead and self._channel is not None:
                self.awaits_go_ahead = False
                self._channel.tell_to_go_ahead()
            self._news.clear()
            await self._news.wait()

    def put_nowait(self, message: dict[str, Any]) -> None:
        """Take note that the connection or the request is over.

        Daphne also gives what it takes for the whole body, an empty one: the true one comes by `feed`.
        """
        if message["type"] == "http.disconnect":
            self.cut()

    def feed(self, data: bytes) -> None:
        """Take in bytes; above the limit no more are read from the sender."""
        if self.is_cut:
            return
        self._pieces.append(data)
        self._waiting += len(data)
        self._news.set()
        if self._waiting >= WAITING_BYTES and self._channel is not None:
            self._is_held_back = True
            self._channel.hold_back()

    def complete(self) -> None:
        """Take note that all has come."""
        self.is_complete = True
        self._channel = None
        self._news.set()

    def cut(self) -> None:
        """Take note that nothing more comes; half a body is worth nothing."""
        if not self.is_complete:
            self._pieces.clear()
        self.is_cut = True
        self._channel = None
        self._news.set()

    def _next(self) -> dict[str, Any]:
        if len(self._pieces) > 1 and self._waiting <= SMALL_BYTES:
            data = b"".join(self._pieces)
            self._pieces.clear()
        else:
            data = self._pieces.popleft() if self._pieces else b""
        self._waiting -= len(data)
        self._is_told = self.is_complete and not self._pieces
        if self._is_held_back and self._waiting < WAITING_BYTES // 2 and self._channel is not None:
            self._is_held_back = False
            self._channel.read_on()
        return {"type": "http.request", "body": data, "more_body": not self._is_told}


class Request(WebRequest):
    """One request, which begins at its headers."""

    channel: Any
    body: Body
    has_begun = False

    def gotLength(self, length: int | None) -> None:
        """Make ready for a body of so many bytes, of None where that is not known; it is never kept here."""
        self.content = BytesIO()
        self.body = Body(self.channel)

    def begin(self, command: bytes, path: bytes, version: bytes) -> None:
        """Call the application, though the body is not there yet."""
        self.has_begun = True
        WebRequest.requestReceived(self, command, path, version)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Take note that the body is complete; begin now, if there was none to wait for."""
        self.body.complete()
        if not self.has_begun:
            self.begin(command, path, version)

    def handleContentChunk(self, data: bytes) -> None:
        """Hand bytes of the body on."""
        self.body.feed(data)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Send for the application; the connection ends with an answer that does not wait for the body."""
        if message.get("body") and self.method == b"HEAD":
            message = {**message, "body": b""}
        WebRequest.handle_reply(self, message)
        if message["type"] == "http.response.start" and not self.finished and self.channel is not None:
            self.body.awaits_go_ahead = False
            if not self.body.is_complete or self.responseHeaders.getRawHeaders(b"connection") == [b"close"]:
                self.channel.persistent = False
                self.responseHeaders.setRawHeaders(b"connection", [b"close"])

    def handle_exception(self, exception: BaseException) -> None:
        """Answer 500, or break off what is half sent, so that nobody takes it for whole."""
        if not self._response_started:
            WebRequest.handle_exception(self, exception)
        elif not self.finished and self.channel is not None:
            self.channel.transport.abortConnection()

    async def drained(self) -> None:
        """Return at once, or when the peer has taken enough of what was sent; end a peer that takes nothing."""
        channel = None if self.finished else self.channel
        while channel is not None and not channel.is_empty.is_set():
            patience = settings.QFLARE_TRANSFER_SECONDS
            try:
                async with asyncio.timeout(patience / LOOKS):
                    await channel.is_empty.wait()
            except TimeoutError:
                channel.end_if_stalled(patience)


class Channel(http.HTTPChannel):
    """One connection: hands bodies on as they come, and takes note whether its transport has room."""

    transport: Any
    callLater: Any
    timeOut: Any
    _networkProducer: Any

    def __init__(self) -> None:
        http.HTTPChannel.__init__(self)
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self._is_deaf = False
        self._untaken = 0
        self._moved_at = 0.0
        self._next_look: Any = None

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def allHeadersReceived(self) -> None:
        """Begin the request, if a body follows; one without begins when Twisted finds it complete, which is now."""
        http.HTTPChannel.allHeadersReceived(self)
        if self.length == 0:
            return
        request = self.requests[-1]
        if b"websocket" in [value.lower() for value in request.requestHeaders.getRawHeaders(b"upgrade", [])]:
            self._respondToBadRequestAndDisconnect()
            return
        if self.length is None or self.length > READ_BYTES:
            tcp_of(self.transport).bufferSize = READ_BYTES
        request.begin(self._command, self._path, self._version)

    def rawDataReceived(self, data: bytes) -> None:
        """Take in bytes of a body; none that belong to a request which has its answer already."""
        if not self._is_deaf:
            http.HTTPChannel.rawDataReceived(self, data)

    def requestDone(self, request: Any) -> None:
        """Make ready for the next request; after a body that was not awaited none can be told from it."""
        if not request.body.is_complete:
            self._is_deaf = True
            self.persistent = False
        http.HTTPChannel.requestDone(self, request)
        if not self.persistent:
            self._moved_at, self._untaken = self.factory.reactor.seconds(), 0
            self._watch_the_end()

    def hold_back(self) -> None:
        """Read nothing from the peer, which is not its fault: meanwhile it has all time."""
        if self.timeOut:
            self._savedTimeOut = http.HTTPChannel.setTimeout(self, None)
        self._networkProducer.pauseProducing()

    def read_on(self) -> None:
        """Read from the peer again."""
        http.HTTPChannel.setTimeout(self, self._savedTimeOut)
        self._networkProducer.resumeProducing()

    def tell_to_go_ahead(self) -> None:
        """Tell the peer that its body is wanted."""
        http.HTTPChannel._send100Continue(self)

    def _send100Continue(self) -> None:
        # Twisted says so to every body; here the application has to want it.
        self.requests[-1].body.awaits_go_ahead = True

    def _respondToBadRequestAndDisconnect(self) -> None:
        # This is all that is answered to a request that has begun, whatever its application says.
        self._is_deaf = True
        begun = [request for request in self.requests if request.has_begun]
        for request in begun:
            request.finished = 1
            request.body.cut()
        if any(request.startedWriting for request in begun):
            self.transport.abortConnection()
        else:
            http.HTTPChannel._respondToBadRequestAndDisconnect(self)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pauseProducing(self) -> None:
        """Take note that enough waits for the peer."""
        if self.is_empty.is_set():
            self.is_empty.clear()
            self._moved_at, self._untaken = self.factory.reactor.seconds(), 0
        http.HTTPChannel.pauseProducing(self)

    def resumeProducing(self) -> None:
        """Take note that there is room again."""
        self.is_empty.set()
        http.HTTPChannel.resumeProducing(self)

    def connectionLost(self, reason: Any = None) -> None:
        """Let nobody wait for a peer that is gone."""
        self.is_empty.set()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        http.HTTPChannel.connectionLost(self, reason)

    def _watch_the_end(self) -> None:
        # A transport that is to close waits without end until the peer has taken what is left.
        patience = settings.QFLARE_TRANSFER_SECONDS
        self._next_look = self.callLater(patience / LOOKS, self._watch_the_end)
        self.end_if_stalled(patience)

    def end_if_stalled(self, patience: float) -> None:
        """End the connection if the peer has taken no byte for so many seconds."""
        now, untaken = self.factory.reactor.seconds(), self._count_untaken()
        if untaken < self._untaken:
            self._moved_at = now
        self._untaken = untaken
        if now - self._moved_at >= patience:
            logger.info("%s took nothing of an answer for %g s and is ended", self.transport.getPeer(), patience)
            self.transport.abortConnection()

    def _count_untaken(self) -> int:
        """Return how many bytes the peer's system has not taken yet: those here and those that this system keeps."""
        return waiting_in(self.transport) + kept_by_system(tcp_of(self.transport).fileno())


class Factory(HTTPFactory):
    """Makes the connections of a server."""

    def __init__(self, server: Any) -> None:
        HTTPFactory.__init__(self, server)

    def buildProtocol(self, addr: Any) -> Any:
        """Return what speaks with a new peer."""
        channel = Channel()
        channel.factory = self
        channel.requestFactory = Request
        channel.callLater = self.reactor.callLater
        channel.timeOut = settings.QFLARE_TRANSFER_SECONDS
        return channel

    def log(self, request: Any) -> None:
        """Make no line of an access log: it would go nowhere."""

    def acceptableProtocols(self) -> list[bytes]:
        """Return what is spoken over TLS: HTTP/1.1 alone."""
        return [b"http/1.1"]


def begin_application(server: Any, request: Request, scope: dict[str, Any]) -> Body:
    """Call a server's application for a request as Daphne does, with the request's own body for its `receive`."""
    scope["asgi"] = {"version": "3.0"}
    application = server.application(scope, request.body.get, partial(server.handle_reply, request))
    server.connections[request]["application_instance"] = asyncio.ensure_future(application)
    return request.body
