"""Takes the bodies of updates from the server, before Django's handler would read them whole.

Small ones, as most are, are gathered and handed to a thread at once. Of large ones the headers are looked at before a
byte is read, and the next bytes are asked for when the last ones were written: the server holds the sender back.
"""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from edge.protocol.http import Problem, ProblemBody, UpdateReceipt
from fl.api.authentication import CHALLENGE
from fl.api.errors import SERVER_ERROR, problem_of, status_of
from fl.api.uploads import Upload
from fl.exceptions import FlError
from fl.payloads import UPDATE_PATH

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
"""What is gathered before a thread is asked to write it, and the longest body that is taken in one go."""

_PATH = re.compile(re.escape(UPDATE_PATH).replace(re.escape("{assignment_id}"), r"([0-9]{1,18})"))

Call = Callable[..., Awaitable[Any]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Gone(Exception):
    """The sender has left before its body was whole: it will send it again."""


def assignment_in(path: str) -> int | None:
    """Return the assignment whose update goes to this path, or None where none does."""
    found = _PATH.fullmatch(path)
    return int(found[1]) if found else None


async def take_update(assignment_id: int, scope: Mapping[str, Any], receive: Receive, send: Send, call: Call) -> None:
    """Answer a request to the address of an update.

    Args:
        call: calls a function in a thread that may use the database.
    """
    if scope["method"] != "PUT":
        problem = Problem(code="method_not_allowed", message="an update is sent by PUT", action="see /api/docs/")
        await _answer(send, HTTPStatus.METHOD_NOT_ALLOWED, ProblemBody(error=problem), (b"allow", b"PUT"))
        return
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        receipt = await _receive(assignment_id, headers, receive, call)
    except _Gone:
        return
    except FlError as error:
        status = status_of(error)
        challenge = [(b"www-authenticate", CHALLENGE.encode())] if status == HTTPStatus.UNAUTHORIZED else []
        await _answer(send, status, problem_of(error), *challenge)
    except Exception:
        logger.exception("an update for assignment %s could not be taken", assignment_id)
        await _answer(send, HTTPStatus.INTERNAL_SERVER_ERROR, SERVER_ERROR)
    else:
        await _answer(send, HTTPStatus.OK, receipt)


async def _receive(assignment_id: int, headers: Mapping[str, str], receive: Receive, call: Call) -> UpdateReceipt:
    length = headers.get("content-length", "")
    receipt: UpdateReceipt
    if length.isdecimal() and int(length) <= CHUNK_BYTES:
        chunks = [chunk async for chunk in _chunks(receive)]
        receipt = await call(_take_at_once, assignment_id, headers, chunks)
        return receipt
    upload: Upload = await call(Upload, assignment_id, headers)
    try:
        async for chunk in _chunks(receive):
            await call(upload.write, chunk)
        receipt = await call(upload.finish)
    finally:
        await call(upload.discard)
    return receipt


def _take_at_once(assignment_id: int, headers: Mapping[str, str], chunks: list[bytes]) -> UpdateReceipt:
    upload = Upload(assignment_id, headers)
    try:
        for chunk in chunks:
            upload.write(chunk)
        return upload.finish()
    finally:
        upload.discard()


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    """Return a body in pieces of about CHUNK_BYTES."""
    waiting = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        waiting += message.get("body", b"")
        more = message.get("more_body", False)
        if waiting and (len(waiting) >= CHUNK_BYTES or not more):
            yield bytes(waiting)
            waiting.clear()


async def _answer(send: Send, status: int, body: msgspec.Struct, *headers: tuple[bytes, bytes]) -> None:
    data = msgspec.json.encode(body)
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": data})
