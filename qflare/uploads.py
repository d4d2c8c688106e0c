"""Takes the bodies of updates from the server, before Django's handler would read them whole.

Who sends is looked at before a byte is read. Small bodies, as most are, are gathered then, and handed to a thread at
once. Of large ones the next bytes are asked for while the last are written: the server holds the sender back.
"""

import asyncio
import logging
import re
from collections import deque
from contextlib import AsyncExitStack
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
"""What is gathered before it goes to the thread that writes, and the longest body that is taken in one go."""

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
    async with AsyncExitStack() as afterwards:
        try:
            receipt = await _receive(assignment_id, incoming, call, afterwards)
        except Gone:
            return
        except FlError as error:
            await answer(incoming, send, status_of(error), problem_of(error))
        except Exception as error:
            logger.exception("an update for assignment %s could not be taken", assignment_id)
            await answer_failure(incoming, send, error)
        else:
            await answer(incoming, send, HTTPStatus.OK, receipt)


async def _receive(assignment_id: int, incoming: Incoming, call: Call, afterwards: AsyncExitStack) -> UpdateReceipt:
    """Take a body in, and have what is left of a large one removed `afterwards`: its sender need not wait for that."""
    device_id = sender_of(incoming.headers, timezone.now())
    length = incoming.length
    receipt: UpdateReceipt
    if length is not None and length <= CHUNK_BYTES:
        parts = [part async for parts in incoming.pieces(CHUNK_BYTES) for part in parts]
        receipt = await call(_take_at_once, assignment_id, device_id, incoming, parts)
        return receipt
    upload: Upload = await call(Upload, assignment_id, device_id, incoming.headers)
    afterwards.push_async_callback(call, upload.discard)
    writing = _Writing(upload, call)
    afterwards.push_async_callback(writing.give_up)
    async for parts in incoming.pieces(CHUNK_BYTES):
        await writing.add(parts)
    await writing.end()
    receipt = await call(upload.finish)
    return receipt


def _take_at_once(assignment_id: int, device_id: int, incoming: Incoming, parts: list[bytes]) -> UpdateReceipt:
    upload = Upload(assignment_id, device_id, incoming.headers)
    try:
        upload.write(parts)
        return upload.finish()
    finally:
        upload.discard()


class _Writing:
    """Writes pieces in a thread, in their order; beside the one that is written one waits, so that none is waited for.

    The thread is asked for once for as many pieces as come without a pause, and is free in between: to ask for each,
    and to hear of each before the next, would take a tenth as long as to write them.
    """

    def __init__(self, upload: Upload, call: Call) -> None:
        self._upload = upload
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._waiting = deque[list[bytes]]()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, parts: list[bytes]) -> None:
        """Take a piece in, and return when there is room for the next.

        Raises:
            FlError, OSError: what writing it or an earlier one met.
        """
        self._waiting.append(parts)
        if self._task is None or self._task.done():
            await self.end()
            self._task = asyncio.create_task(self._write_all())
            self._task.add_done_callback(lambda _: self._news.set())
        while len(self._waiting) > 1 and not self._task.done():
            self._news.clear()
            await self._news.wait()
        if self._task.done():
            await self.end()

    async def end(self) -> None:
        """Return when all that was taken in is written.

        Raises:
            FlError, OSError: what writing a piece met.
        """
        if self._task is not None:
            await asyncio.shield(self._task)  # who is cancelled here has no thread stopped by that

    async def give_up(self) -> None:
        """Return when nothing is being written; what waits never is."""
        self._waiting.clear()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _write_all(self) -> None:
        while self._waiting:  # also what came in after the thread last looked
            await self._call(self._write_what_waits)

    def _write_what_waits(self) -> None:
        while True:
            try:
                parts = self._waiting.popleft()
            except IndexError:
                return
            self._loop.call_soon_threadsafe(self._news.set)
            self._upload.write(parts)
