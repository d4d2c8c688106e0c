"""Files of weights on their way down: whole, or from where a transfer broke off; not at all to those who have them."""

import re
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import msgspec
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header, quote_etag

from edge.protocol.http import Problem, ProblemBody
from fl.files import open_file
from fl.models import GlobalModel

WHOLE_BYTES = 256 * 1024
"""What is read and sent at once: to stream it would cost changes of threads."""
CHUNK_BYTES = 512 * 1024
"""The pieces in which longer files go down."""
MEDIA_TYPE = "application/octet-stream"

_RANGE = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?")


@dataclass(frozen=True)
class Reply:
    """What is answered to one who asks for a file: `content`, or `size` bytes of the file from `start` on."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    start: int = 0
    size: int = 0

    @property
    def is_long(self) -> bool:
        """Whether it is sent in pieces."""
        return self.size > WHOLE_BYTES


def reply_for(model: GlobalModel, method: str, headers: Mapping[str, str], filename: str = "") -> Reply:
    """Decide what is answered to one who may have the weights of a model and asks for them by GET or HEAD.

    The ETag is the weights' digest. One range is answered as such; several, or what is no range, as if not asked for.

    Args:
        headers: of the request; asked by names in lower case.
        filename: what a browser saves it as; without one, the bytes alone are sent.
    """
    etag = quote_etag(model.digest)
    # Whoever may see it today may not tomorrow: keep it, but ask each time.
    common = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if _names(headers.get("if-none-match", ""), etag):
        return Reply(304, common)
    common["Accept-Ranges"] = "bytes"
    part = _part(headers, etag, model.size) if method == "GET" else None
    start, end = part or (0, model.size)
    if start >= end and part is not None:
        return _beyond_the_end(common, model.size)
    common |= {"Content-Type": MEDIA_TYPE, "Content-Length": str(end - start)}
    if filename:
        common["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=filename) or ""
    if part is not None:
        common["Content-Range"] = f"bytes {start}-{end - 1}/{model.size}"
    return Reply(200 if part is None else 206, common, start=start, size=end - start if method == "GET" else 0)


def read_part(model: GlobalModel, reply: Reply) -> bytes:
    """Return what a reply that is not long sends."""
    if not reply.size:
        return reply.content
    with open_file(model.file) as file:
        file.seek(reply.start)
        return file.read(reply.size)


class FilePart:
    """Some bytes of a file, in chunks: to a loop each one read in a thread, to others one after another."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(start)

    def read(self) -> bytes:
        """Return the next chunk; none at the end.

        Raises:
            EOFError: the file is shorter than it was said to be.
        """
        chunk = self._file.read(min(CHUNK_BYTES, self._left))
        if not chunk and self._left:
            raise EOFError(f"a file of weights ended {self._left} bytes too early")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read, b"")

    def __aiter__(self) -> "_InThreads":
        return _InThreads(self)


class _InThreads:
    """The chunks of a part of a file, for a loop."""

    def __init__(self, part: FilePart) -> None:
        self._part = part
        self._in_thread = sync_to_async(self._read, thread_sensitive=False)

    def __aiter__(self) -> "_InThreads":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._in_thread()

    def aclose(self) -> Awaitable[None]:
        return sync_to_async(self._part.close, thread_sensitive=False)()

    def _read(self) -> bytes:
        if chunk := self._part.read():
            return chunk
        raise StopAsyncIteration


class StreamedFile(StreamingHttpResponse):
    """A part of a file as Django's answer; under ASGI, Django collects in memory what has no `__aiter__`."""

    def __init__(self, part: FilePart, status: int) -> None:
        super().__init__(part, status=status)
        self._part = part

    def __aiter__(self) -> _InThreads:
        return aiter(self._part)


def send_weights(request: HttpRequest, model: GlobalModel, *, filename: str = "") -> HttpResponse | StreamedFile:
    """Answer as `reply_for` says."""
    reply = reply_for(model, request.method or "", request.headers, filename)
    response: HttpResponse | StreamedFile
    if reply.is_long:
        response = StreamedFile(FilePart(open_file(model.file), reply.start, reply.size), reply.status)
    else:
        response = HttpResponse(read_part(model, reply), status=reply.status)
    if "Content-Type" not in reply.headers:
        del response.headers["Content-Type"]
    for name, value in reply.headers.items():
        response.headers[name] = value
    return response


def _part(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Return the part that is asked for as its start and end; one beyond the file's end has no bytes."""
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or found[0] == "bytes=-" or headers.get("if-range", etag) != etag:
        return None
    if found[1] is None:
        return max(0, size - int(found[2])), size
    start, last = int(found[1]), int(found[2] or size)
    return None if last < start and found[2] else (start, min(last + 1, size))


def _beyond_the_end(headers: Mapping[str, str], size: int) -> Reply:
    problem = Problem(
        code="range_not_satisfiable",
        message=f"the weights have {size} bytes, and the range that is asked for has none of them",
        action="ask for a range within them, or without one",
    )
    content = msgspec.json.encode(ProblemBody(error=problem))
    told = {"Content-Range": f"bytes */{size}", "Content-Type": "application/json", "Content-Length": str(len(content))}
    return Reply(416, {**headers, **told}, content)


def _names(header: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return etag in tags or header.strip() == "*"
