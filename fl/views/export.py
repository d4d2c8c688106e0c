"""Answers that are written line by line, however many there are: CSV and JSON to be kept.

A file reads alike whoever asked for it, in whichever language: what is kept is compared and read by programs.
"""

import csv
import io
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from itertools import islice

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.translation import override

LINES_AT_ONCE = 500
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets begin a formula with."""


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Write rows as CSV, each a text; texts that would be formulas get an apostrophe before them."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    yield buffer.getvalue()
    for cells in rows:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])
        yield buffer.getvalue()


def json_lines(rows: Iterable[object]) -> Iterator[str]:
    """Write rows as one JSON array, each in a line of its own; numbers that are not finite are null."""
    before = "[\n"
    for row in rows:
        yield before + msgspec.json.encode(row).decode()
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


class StreamedText(StreamingHttpResponse):
    """A text to be kept as a file, made while it is sent; its lines may ask the database, from one thread or another.

    Under ASGI, Django collects in memory what has no `__aiter__`.
    """

    def __init__(self, lines: Iterator[str], *, content_type: str, filename: str) -> None:
        self._pieces = _Pieces(lines)
        super().__init__(self._pieces, content_type=content_type)
        self.headers["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=filename) or ""

    def __aiter__(self) -> "_InThreads":
        return _InThreads(self._pieces)


class _Pieces:
    """Lines, some hundred together."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def next(self) -> bytes:
        """Return the next piece; none at the end."""
        with override(settings.LANGUAGE_CODE):
            return "".join(islice(self._lines, LINES_AT_ONCE)).encode()

    def close(self) -> None:
        """Make no more: nobody reads on."""
        self._lines = iter(())

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.next, b"")


class _InThreads:
    """Pieces for a loop, each made in a thread."""

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._in_thread = sync_to_async(self._next, thread_sensitive=False)

    def __aiter__(self) -> "_InThreads":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._in_thread()

    def aclose(self) -> Awaitable[None]:
        return sync_to_async(self._pieces.close, thread_sensitive=False)()

    def _next(self) -> bytes:
        try:
            if piece := self._pieces.next():
                return piece
        finally:
            # The thread is nobody's: what it has opened must not stay with it.
            connection.close()
        raise StopAsyncIteration
