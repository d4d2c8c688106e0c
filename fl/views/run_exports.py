"""Rows of a run as a file, CSV or JSON, sent piece by piece: no file is ever whole in memory."""

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from edge.protocol.server import Spread
from fl.models import Run
from fl.queries import run_rounds as queries
from fl.queries.run_rounds import AssignmentLine
from fl.queries.runs import RoundLine

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
"""What `?format=` may be → the type of the file."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins like this is a formula to spreadsheets."""

Pieces = Iterable[Sequence[Any]]


def rounds_file(run: Run, kind: str, *, state: str = "") -> StreamingHttpResponse:
    """Answer with all rounds of a run, the first one first; `state` keeps those in one state.

    Args:
        kind: a key of `FORMATS`.
    """
    pieces = queries.all_rounds(run, state=state)
    name = f"{run.label}-rounds.{kind}"
    if kind == "json":
        return StreamedRows(json_parts(pieces), kind, name)
    metrics = queries.metric_names(run)
    return StreamedRows(csv_parts(pieces, lambda line: _round_row(line, metrics), _round_header(metrics)), kind, name)


def assignments_file(run: Run, number: int, kind: str) -> StreamingHttpResponse:
    """Answer with every device's part of a round.

    Raises:
        NotFound: the run has no such round.
    """
    pieces = queries.all_assignments(run, number)
    name = f"{run.label}-round-{number}.{kind}"
    if kind == "json":
        return StreamedRows(json_parts(pieces), kind, name)
    return StreamedRows(csv_parts(pieces, _assignment_row, ASSIGNMENT_HEADER), kind, name)


# ── what the columns are ──────────────────────────────────────────────────────────────────────────────────────────────

ROUND_HEADER = (
    *("round", "state", "reason", "selected", "updates_received", "updates_lost", "duration_seconds"),
    *("version", "size_bytes", "is_best"),
)
SPREADS = ("mean", "p10", "p90")
ASSIGNMENT_HEADER = (
    *("assignment_id", "device_id", "device_name", "state", "reason", "code", "duration_seconds", "num_examples"),
    *("loss", "accuracy", "other_metrics", "norm", "size_bytes", "assigned_at", "ended_at", "received_at"),
)


def _round_header(metrics: Sequence[str]) -> list[str]:
    measured = [column for name in metrics for column in (name, *(f"{name}_devices_{part}" for part in SPREADS))]
    return [*ROUND_HEADER, *measured]


def _round_row(line: RoundLine, metrics: Sequence[str]) -> list[object]:
    plain = [line.number if name == "round" else getattr(line, name) for name in ROUND_HEADER]
    for name in metrics:
        plain += [(line.metrics or {}).get(name), *_parts_of(line.device_metrics.get(name))]
    return plain


def _parts_of(spread: Spread | None) -> list[float | None]:
    return [getattr(spread, part, None) for part in SPREADS]


def _assignment_row(line: AssignmentLine) -> list[object]:
    special: Mapping[str, object] = {
        "accuracy": line.metrics.get("accuracy"),
        "other_metrics": " ".join(f"{name}={value!r}" for name, value in line.other_metrics),
    }
    return [special[name] if name in special else getattr(line, name) for name in ASSIGNMENT_HEADER]


# ── how they are written ──────────────────────────────────────────────────────────────────────────────────────────────


def csv_parts(pieces: Pieces, row_of: Callable[[Any], Sequence[object]], header: Sequence[str]) -> Iterator[bytes]:
    """Yield a CSV file, a part for its header and one for each piece."""
    yield _csv([header])
    for piece in pieces:
        yield _csv(row_of(line) for line in piece)


def json_parts(pieces: Pieces) -> Iterator[bytes]:
    """Yield a JSON array of the rows; numbers that are not finite are null."""
    before = b"[\n"
    for piece in pieces:
        yield before + b",\n".join(msgspec.json.encode(line) for line in piece)
        before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def cell(value: object) -> object:
    """Return a value as a cell that no spreadsheet takes for a formula: a text gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value.isoformat() if hasattr(value, "isoformat") else value


class StreamedRows(StreamingHttpResponse):
    """A file made while it is sent; to a loop each part comes from a thread, since each reads the database."""

    def __init__(self, parts: Iterator[bytes], kind: str, filename: str) -> None:
        super().__init__(parts, content_type=FORMATS[kind])
        self._parts = parts
        self.headers["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=filename) or ""

    def __aiter__(self) -> "_InThreads":
        return _InThreads(self._parts)


class _InThreads:
    """The parts of a file, for a loop; the connection of a thread that one borrows is not left open."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._in_thread = sync_to_async(self._next, thread_sensitive=False)

    def __aiter__(self) -> "_InThreads":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._in_thread()

    def aclose(self) -> Awaitable[None]:
        return sync_to_async(self._close, thread_sensitive=False)()

    def _next(self) -> bytes:
        try:
            for part in self._parts:
                return part
        finally:
            connections.close_all()
        raise StopAsyncIteration

    def _close(self) -> None:
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()
