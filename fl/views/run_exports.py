"""Rows of a run as a file, CSV or JSON, sent piece by piece: no file is ever whole in memory."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain

from django.http import StreamingHttpResponse

from edge.protocol.server import Spread
from fl.models import Run
from fl.queries import run_rounds as queries
from fl.queries.run_rounds import AssignmentLine
from fl.round_lines import RoundLine
from fl.views.export import StreamedText, csv_lines, json_lines

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
"""What `?format=` may be → the type of the file."""


def rounds_file(run: Run, kind: str, *, state: str = "") -> StreamingHttpResponse:
    """Answer with all rounds of a run, the first one first; `state` keeps those in one state.

    Args:
        kind: a key of `FORMATS`.
    """
    return _file(rounds_text(run, kind, state=state), kind, f"{run.label}-rounds.{kind}")


def rounds_text(run: Run, kind: str, *, state: str = "") -> Iterator[str]:
    """Return the same as text, line by line."""
    lines = chain.from_iterable(queries.all_rounds(run, state=state))
    if kind == "json":
        return json_lines(lines)
    metrics = queries.metric_names(run)
    return csv_lines(_round_header(metrics), (_round_row(line, metrics) for line in lines))


def assignments_file(run: Run, number: int, kind: str) -> StreamingHttpResponse:
    """Answer with every device's part of a round.

    Raises:
        NotFound: the run has no such round.
    """
    lines = chain.from_iterable(queries.all_assignments(run, number))
    name = f"{run.label}-round-{number}.{kind}"
    if kind == "json":
        return _file(json_lines(lines), kind, name)
    return _file(csv_lines(ASSIGNMENT_HEADER, map(_assignment_row, lines)), kind, name)


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
    plain = [special[name] if name in special else getattr(line, name) for name in ASSIGNMENT_HEADER]
    return [value.isoformat() if isinstance(value, datetime) else value for value in plain]


def _file(lines: Iterator[str], kind: str, name: str) -> StreamingHttpResponse:
    return StreamedText(lines, content_type=FORMATS[kind], filename=name)
