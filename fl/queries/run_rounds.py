"""The rounds of a run, and one round with every device's part of it: a page of them, or all, piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, IntegerField, QuerySet, Value, When

from edge.protocol.server import TrainingProgress
from fl.exceptions import NotFound
from fl.lifecycle import AssignmentState
from fl.models import Assignment, GlobalModel, Round, Run, Update
from fl.payloads import assignment_progress
from fl.queries.run_tabs import Head, head_of
from fl.queries.runs import initial_line, round_lines
from fl.round_lines import RoundLine
from fl.snapshots import consistent_read
from fl.visibility import Principal

ROUNDS_A_PAGE = 50
ASSIGNMENTS_A_PAGE = 100
PIECE = 500
"""How many rows are read at once for a file."""

TROUBLE_FIRST = (
    AssignmentState.REJECTED,
    AssignmentState.FAILED,
    AssignmentState.LATE,
    AssignmentState.EXPIRED,
    AssignmentState.CANCELLED,
    AssignmentState.UPLOADING,
    AssignmentState.TRAINING,
    AssignmentState.ASSIGNED,
    AssignmentState.ACCEPTED,
)
"""The order of a round's assignments: what one has to look at comes first, then what is still open."""


# ── all rounds ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RoundPage:
    """A page of a run's rounds, newest first; the last page ends with the initial evaluation."""

    head: Head
    lines: list[RoundLine]
    total: int


def round_page(principal: Principal, run_id: int, *, state: str = "", offset: int = 0) -> RoundPage:
    """Read a page of a run's rounds; `state` keeps those in one state.

    Raises:
        NotFound: as `head_of`.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        rounds = _rounds(head.run, state)
        total = rounds.count()
        lines = round_lines(head.run, rounds.order_by("-number")[offset : offset + ROUNDS_A_PAGE])[::-1]
        initial = None if state or offset + ROUNDS_A_PAGE < total else initial_line(head.run)
        return RoundPage(head=head, lines=[*lines, initial] if initial else lines, total=total)


def all_rounds(run: Run, *, state: str = "") -> Iterator[list[RoundLine]]:
    """Yield all rounds of a run, the initial evaluation first, in pieces of `PIECE`."""
    initial = None if state else initial_line(run)
    if initial:
        yield [initial]
    reached = 0
    while True:
        with consistent_read():
            piece = round_lines(run, _rounds(run, state).filter(number__gt=reached).order_by("number")[:PIECE])
        if not piece:
            return
        yield piece
        reached = piece[-1].number


def metric_names(run: Run) -> list[str]:
    """Return the names of all metrics that the server or a device has measured in a run."""
    names: set[str] = set()
    published = GlobalModel.objects.filter(run=run, published_at__isnull=False).order_by()
    for metrics in published.values_list("metrics", flat=True).iterator():
        names.update(metrics or ())
    for metrics in run.round_set.order_by().values_list("device_metrics", flat=True).iterator():
        names.update(metrics)
    return sorted(names)


def _rounds(run: Run, state: str) -> QuerySet[Round]:
    return Round.objects.filter(run=run, state=state) if state else Round.objects.filter(run=run)


# ── one round ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class AssignmentLine:
    """One device's part of a round: how far it is, how it ended and why, what the device sent.

    Attributes:
        loss: the one that the device's update reports, else the newest told while it trains.
        size_bytes, num_examples: as the update's manifest says; None where none could be read.
        norm: L2 over all floating tensors.
    """

    assignment_id: int
    device_id: int
    device_name: str
    state: str
    reason: str
    code: str
    progress: float
    duration_seconds: float | None
    num_examples: int | None
    loss: float | None
    metrics: dict[str, float | None]
    norm: float | None
    size_bytes: int | None
    assigned_at: datetime
    ended_at: datetime | None
    received_at: datetime | None

    @property
    def other_metrics(self) -> list[tuple[str, float]]:
        """What the device measured beside loss and accuracy."""
        others = sorted(self.metrics.keys() - {"loss", "accuracy"})
        return [(name, value) for name in others if (value := self.metrics[name]) is not None]


@dataclass(frozen=True)
class RoundDetail:
    """One round, with a page of its devices' parts; `newest` is the number of the run's newest round."""

    head: Head
    round: Round
    line: RoundLine
    assignments: list[AssignmentLine]
    progress: list[TrainingProgress]
    newest: int

    @property
    def waited_seconds(self) -> float | None:
        """How long it waited for its cohort."""
        return _seconds(self.round.opened_at, self.round.started_at)

    @property
    def trained_seconds(self) -> float | None:
        """How long it took updates."""
        return _seconds(self.round.started_at, self.round.closed_at)

    @property
    def aggregated_seconds(self) -> float | None:
        """How long aggregation and evaluation took."""
        return _seconds(self.round.closed_at, self.round.ended_at)


def round_detail(principal: Principal, run_id: int, number: int, *, offset: int = 0) -> RoundDetail:
    """Read one round of a run with a page of its assignments.

    Raises:
        NotFound: as `head_of`; or the run has no such round.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        round_ = _round(head.run, number)
        rows = list(_in_order(round_)[offset : offset + ASSIGNMENTS_A_PAGE])
        (line,) = round_lines(head.run, Round.objects.filter(pk=round_.pk))
        for row in rows:
            row.round = round_
        return RoundDetail(
            head=head,
            round=round_,
            line=line,
            assignments=[_assignment_line(row) for row in rows],
            progress=[assignment_progress(row, getattr(row, "update", None)) for row in rows],
            newest=head.status.round or number,
        )


def all_assignments(run: Run, number: int) -> Iterator[list[AssignmentLine]]:
    """Yield every device's part of a round, in the page's order, in pieces of `PIECE`.

    Raises:
        NotFound: the run has no such round.
    """
    round_ = _round(run, number)
    return _assignments_in_pieces(round_)


def _assignments_in_pieces(round_: Round) -> Iterator[list[AssignmentLine]]:
    # The numbers are few and taken once: states change meanwhile, and with them the order.
    order = list(_in_order(round_).values_list("pk", flat=True))
    for start in range(0, len(order), PIECE):
        wanted = order[start : start + PIECE]
        rows = _with_updates(Assignment.objects.filter(pk__in=wanted)).in_bulk()
        yield [_assignment_line(rows[pk]) for pk in wanted if pk in rows]


def _round(run: Run, number: int) -> Round:
    round_ = Round.objects.filter(run=run, number=number).select_related("base_model").first()
    if round_ is None:
        raise NotFound(f"run {run.label} has no round {number}")
    return round_


def _in_order(round_: Round) -> QuerySet[Assignment]:
    places = [When(state=state, then=Value(place)) for place, state in enumerate(TROUBLE_FIRST)]
    rank = Case(*places, default=Value(len(places)), output_field=IntegerField())
    return _with_updates(Assignment.objects.filter(round=round_)).order_by(rank, "device__name")


def _with_updates(rows: QuerySet[Assignment]) -> QuerySet[Assignment]:
    heavy = ("device__public_key", "update__manifest", "update__signature")
    return rows.select_related("device", "update").defer(*heavy)


def _assignment_line(row: Assignment) -> AssignmentLine:
    update: Update | None = getattr(row, "update", None)
    metrics: dict[str, Any] = update.metrics if update else {}
    return AssignmentLine(
        assignment_id=row.pk,
        device_id=row.device_id,
        device_name=row.device.name,
        state=row.state,
        reason=row.reason,
        code=update.code if update else "",
        progress=row.progress,
        duration_seconds=_seconds(row.assigned_at, row.ended_at),
        num_examples=(update.num_examples or None) if update else None,
        loss=metrics.get("loss", row.loss),
        metrics=metrics,
        norm=update.norm if update else None,
        size_bytes=(update.size or None) if update else None,
        assigned_at=row.assigned_at,
        ended_at=row.ended_at,
        received_at=update.received_at if update else None,
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None
