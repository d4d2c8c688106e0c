"""Takes the bodies of updates from the server, before Django's handler would read them whole.

Who sends is looked at before a byte is read. Small bodies, as most are, are gathered then, and handed to a thread at
once. Of large ones the next bytes are asked for while the last are written: the server holds the sender back.
"""

import asyncio
import logging
import re
from http import HTTPStatus

from django.utils import timezone

from edge.protocol.http import Problem, ProblemBody, UpdateReceipt
from fl.api.authentication import sender_of
from fl.api.errors import problem_of, status_of
from fl.api.uploads import Upload
from fl.exceptions import FlError
from fl.payloads import UPDATE_PATH
from qflare.bodies import Call, Gone, Incoming, Receive, Scope, Send, answer, answer_failure

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
"""What is gathered before a thread is asked to write it, and the longest body that is taken in one go."""

_PATH = re.compile(re.escape(UPDATE_PATH).replace(re.escape("{assignment_id}"), r"([0-9]{1,18})"))
_WRONG_METHOD = ProblemBody(
    error=Problem(code="method_not_allowed", message="an update is sent by PUT", action="see /api/docs/")
)


def assignment_in(path: str) -> int | None:
    """Return the assignment whose update goes to this path, or None where none does."""
    found = _PATH.fullmatch(path)
    return int(found[1]) if found else None


async def take_update(assignment_id: int, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
    """Answer a request to the address of an update."""
    incoming = Incoming(scope, receive)
    if scope["method"] != "PUT":
        await answer(incoming, send, HTTPStatus.METHOD_NOT_ALLOWED, _WRONG_METHOD, (b"allow", b"PUT"))
        return
    try:
        receipt = await _receive(assignment_id, incoming, call)
    except Gone:
        return
    except FlError as error:
        await answer(incoming, send, status_of(error), problem_of(error))
    except Exception as error:
        logger.exception("an update for assignment %s could not be taken", assignment_id)
        await answer_failure(incoming, send, error)
    else:
        await answer(incoming, send, HTTPStatus.OK, receipt)


async def _receive(assignment_id: int, incoming: Incoming, call: Call) -> UpdateReceipt:
    device_id = sender_of(incoming.headers, timezone.now())
    length = incoming.length
    receipt: UpdateReceipt
    if length is not None and length <= CHUNK_BYTES:
        parts = [part async for parts in incoming.pieces(CHUNK_BYTES) for part in parts]
        receipt = await call(_take_at_once, assignment_id, device_id, incoming, parts)
        return receipt
    upload: Upload = await call(Upload, assignment_id, device_id, incoming.headers)
    writing: asyncio.Future[None] | None = None
    try:
        async for parts in incoming.pieces(CHUNK_BYTES):
            if writing is not None:
                await writing
            writing = asyncio.ensure_future(call(upload.write, parts))
        if writing is not None:
            await writing
        receipt = await call(upload.finish)
    finally:
        if writing is not None:
            await asyncio.wait([writing])
        await call(upload.discard)
    return receipt


def _take_at_once(assignment_id: int, device_id: int, incoming: Incoming, parts: list[bytes]) -> UpdateReceipt:
    upload = Upload(assignment_id, device_id, incoming.headers)
    try:
        upload.write(parts)
        return upload.finish()
    finally:
        upload.discard()
