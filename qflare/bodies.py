"""Bodies of requests as the application receives them, the same behind Daphne and behind uvicorn.

What nobody wants to read is refused before it comes, and the connection ends with that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from edge.protocol.http import Problem, ProblemBody
from fl.api.authentication import CHALLENGE
from fl.api.errors import failure_of

MAX_BODY_BYTES = 1024 * 1024
"""The longest body of a request, those of updates aside."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""How long, and how much of what still comes after a refusal is thrown away: who is cut off at once may miss it."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Call = Callable[..., Awaitable[Any]]
"""Calls a function in a thread that may use the database."""

_TOO_LARGE = ProblemBody(
    error=Problem(
        code="too_large",
        message=f"the body of a request has at most {MAX_BODY_BYTES} bytes",
        action="send less at once; updates alone are longer, and have an address of their own",
    )
)


class Gone(Exception):
    """The sender has left before its body was whole: it will send it again."""


class Incoming:
    """The body of one request.

    Attributes:
        headers: of the request, by their names in lower case.
        is_complete: whether all of it was received.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.is_complete = self.headers.get("content-length", "0") == "0" and "transfer-encoding" not in self.headers
        self._receive = receive

    @property
    def length(self) -> int | None:
        """How many bytes it says to have; None where it does not say."""
        if self.is_complete:
            return 0
        length = self.headers.get("content-length", "")
        return int(length) if length.isdecimal() else None

    async def pieces(self, size: int = 1) -> AsyncIterator[list[bytes]]:
        """Return it in pieces of so many bytes or a little more, each in the parts in which it came.

        Raises:
            Gone: the sender has left.
        """
        parts: list[bytes] = []
        waiting = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part, more = message.get("body", b""), message.get("more_body", False)
            self.is_complete = not more
            if part:
                parts.append(part)
                waiting += len(part)
            if parts and (waiting >= size or not more):
                yield parts
                parts, waiting = [], 0

    async def whole(self, limit: int) -> list[bytes] | None:
        """Return all of it, in the parts in which it came; None once it has more bytes than the limit.

        Raises:
            Gone: the sender has left.
        """
        if (self.length or 0) > limit:
            return None
        parts: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            parts += piece
            size += sum(map(len, piece))
            if size > limit:
                return None
        return parts

    async def throw_away(self) -> None:
        """Take in what still comes, for a moment, and keep nothing of it."""
        if self.headers.get("expect", "").lower() == "100-continue":
            return  # it waits to be told to send, and is not
        size = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                async for piece in self.pieces():
                    size += sum(map(len, piece))
                    if size > LINGER_BYTES:
                        return
        except (TimeoutError, Gone):
            return


async def answer(
    incoming: Incoming, send: Send, status: int, body: msgspec.Struct, *headers: tuple[bytes, bytes]
) -> None:
    """Answer a request in JSON; where its body has not come whole, the connection ends with that."""
    data = msgspec.json.encode(body)
    all_headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    if status == HTTPStatus.UNAUTHORIZED:
        all_headers.append((b"www-authenticate", CHALLENGE.encode()))
    if incoming.is_complete:
        await send({"type": "http.response.start", "status": status, "headers": all_headers})
        await send({"type": "http.response.body", "body": data})
        return
    await send({"type": "http.response.start", "status": status, "headers": [*all_headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": data, "more_body": True})
    await incoming.throw_away()
    await send({"type": "http.response.body", "body": b""})


async def answer_failure(incoming: Incoming, send: Send, error: Exception) -> None:
    """Answer what is not the sender's fault: an outage of the database, or what nobody expected."""
    status, body, headers = failure_of(error)
    await answer(incoming, send, status, body, *((name.encode(), value.encode()) for name, value in headers.items()))


async def bounded(application: Call, scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Call an application with a body of at most MAX_BODY_BYTES, and refuse longer ones.

    One of unknown length is gathered first, and has a length then.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" not in headers and (not length or (length.isdigit() and int(length) <= MAX_BODY_BYTES)):
        await application(scope, receive, send)
        return
    incoming = Incoming(scope, receive)
    try:
        parts = await incoming.whole(MAX_BODY_BYTES)
    except Gone:
        return
    if parts is None:
        await answer(incoming, send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
        return
    data = b"".join(parts)
    kept = [(name, value) for name, value in scope["headers"] if name not in (b"transfer-encoding", b"content-length")]
    scope = {**scope, "headers": [*kept, (b"content-length", str(len(data)).encode())]}
    messages = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive_whole() -> dict[str, Any]:
        return next(messages, None) or await receive()

    await application(scope, receive_whole, send)
