"""Sends weights to devices past Django's handler: most are small, and ten devices fetch the same at each round."""

import asyncio
import logging
import re
from http import HTTPStatus

from django.utils import timezone

from edge.protocol.http import Problem, ProblemBody
from fl.api.authentication import sender_of
from fl.api.downloads import fetch_weights
from fl.api.errors import problem_of, status_of
from fl.api.streaming import FilePart, Reply
from fl.exceptions import FlError
from fl.payloads import WEIGHTS_PATH
from qflare.bodies import Call, Gone, Incoming, Receive, Scope, Send, answer, answer_failure

logger = logging.getLogger(__name__)

_PATH = re.compile(re.escape(WEIGHTS_PATH).replace(re.escape("{digest}"), r"([-a-zA-Z0-9_]+)"))
_WRONG_METHOD = ProblemBody(
    error=Problem(code="method_not_allowed", message="weights are fetched by GET", action="see /api/docs/")
)


def digest_in(path: str) -> str | None:
    """Return the digest of the weights that are at this path, or None where none are."""
    found = _PATH.fullmatch(path)
    return found[1] if found else None


async def send_weights(digest: str, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
    """Answer a request to the address of weights."""
    incoming, method = Incoming(scope, receive), scope["method"]
    if method not in ("GET", "HEAD"):
        await answer(incoming, send, HTTPStatus.METHOD_NOT_ALLOWED, _WRONG_METHOD, (b"allow", b"GET, HEAD"))
        return
    try:
        device_id = sender_of(incoming.headers, timezone.now())
        reply, content = await call(fetch_weights, digest, device_id, method, incoming.headers)
    except FlError as error:
        await answer(incoming, send, status_of(error), problem_of(error))
    except Exception as error:
        logger.exception("the weights %s could not be sent", digest)
        await answer_failure(incoming, send, error)
    else:
        await _send(reply, content, incoming, send)


async def _send(reply: Reply, content: bytes | FilePart, incoming: Incoming, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
    headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if isinstance(content, bytes):
        await send({"type": "http.response.body", "body": content})
        return
    chunks = aiter(content)
    leaving = asyncio.ensure_future(_until_gone(incoming))
    try:
        async for chunk in chunks:
            if leaving.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        leaving.cancel()
        await chunks.aclose()


async def _until_gone(incoming: Incoming) -> None:
    """Wait until the reader has left; what it sends with its request means nothing."""
    try:
        while True:
            async for _ in incoming.pieces():
                pass
    except Gone:
        return
