"""Files on their way down: in chunks, whatever the server, and not at all to those who have them."""

from collections.abc import Awaitable
from typing import IO

from asgiref.sync import sync_to_async
from django.http import FileResponse, HttpRequest, HttpResponse
from django.utils.http import content_disposition_header, quote_etag

from fl.files import open_file
from fl.models import GlobalModel

CHUNK_BYTES = 256 * 1024
MEDIA_TYPE = "application/octet-stream"


class _Chunks:
    """A file as an asynchronous iterator of chunks, each read in a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._in_thread = sync_to_async(self._read, thread_sensitive=False)

    def __aiter__(self) -> "_Chunks":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._in_thread()

    def aclose(self) -> Awaitable[None]:
        return sync_to_async(self._file.close, thread_sensitive=False)()

    def _read(self) -> bytes:
        if chunk := self._file.read(CHUNK_BYTES):
            return chunk
        raise StopAsyncIteration


class StreamedFile(FileResponse):
    """A FileResponse that also streams under ASGI, where Django's own is collected in memory first."""

    block_size = CHUNK_BYTES

    def __init__(self, file: IO[bytes], *, filename: str = "") -> None:
        super().__init__(file, as_attachment=bool(filename), filename=filename, content_type=MEDIA_TYPE)
        self._file = file

    def __aiter__(self) -> _Chunks:
        return _Chunks(self._file)


def send_weights(request: HttpRequest, model: GlobalModel, *, filename: str = "") -> HttpResponse | StreamedFile:
    """Answer with the weights of a model, under an ETag that is their digest; 304 for one who has them.

    Args:
        filename: what a browser saves it as; without one, the bytes alone are sent.
    """
    etag = quote_etag(model.digest)
    response: HttpResponse | StreamedFile
    if etag in _tags(request.headers.get("If-None-Match", "")):
        response = HttpResponse(status=304)
    else:
        response = (
            _whole(model, filename)
            if model.size <= CHUNK_BYTES
            else StreamedFile(open_file(model.file), filename=filename)
        )
        response.headers["Content-Length"] = str(model.size)
    response.headers["ETag"] = etag
    # Whoever may see it today may not tomorrow: keep it, but ask each time.
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _whole(model: GlobalModel, filename: str) -> HttpResponse:
    """Answer with one chunk as it is: streaming it would cost a change of threads for its bytes and one for its end."""
    with open_file(model.file) as file:
        response = HttpResponse(file.read(), content_type=MEDIA_TYPE)
    if filename:
        response.headers["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=filename)
    return response


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
