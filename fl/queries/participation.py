"""Who took part in which round of a run: what each device has done in all, and its end in each of the rounds shown."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, FloatField, Func, Max, Q, Sum, Window
from django.db.models.functions import RowNumber

from fl.lifecycle import OPEN_ASSIGNMENTS, AssignmentState
from fl.models import Assignment, Run
from fl.queries.run_tabs import Head, head_of
from fl.snapshots import consistent_read
from fl.visibility import Principal

COLUMNS = 100
"""How many rounds are shown at once."""
DEVICES_A_PAGE = 50
NOT_SELECTED = "."
IN_PROGRESS = "o"
LETTERS: dict[str, str] = {
    AssignmentState.ACCEPTED: "a",
    AssignmentState.LATE: "l",
    AssignmentState.REJECTED: "r",
    AssignmentState.FAILED: "f",
    AssignmentState.EXPIRED: "e",
    AssignmentState.CANCELLED: "c",
    **dict.fromkeys(OPEN_ASSIGNMENTS, IN_PROGRESS),
}
"""State of an assignment → the letter of its cell."""


@dataclass(frozen=True)
class DeviceParts:
    """What became of a device's parts of a run, over all its rounds.

    Attributes:
        since: how many rounds have opened since the last one for which it was selected.
        examples: the sum over its accepted updates; None where there is none.
        median_seconds: from assignment to accepted update; None where there is none.
    """

    device_id: int
    name: str
    selected: int
    accepted: int
    late: int
    rejected: int
    failed: int
    since: int
    examples: int | None
    median_seconds: float | None


@dataclass(frozen=True)
class Participation:
    """A page of devices, each with its cells from round `first` to round `last`, one letter a round."""

    head: Head
    devices: list[DeviceParts]
    cells: dict[int, str]
    first: int
    last: int
    newest: int
    total: int

    @property
    def counts(self) -> Counter[str]:
        """How many cells there are of each letter."""
        return Counter("".join(self.cells.values()))


def _least(value: float | None) -> float:
    return -1.0 if value is None else value


SORTS: dict[str, Callable[[DeviceParts], Any]] = {
    "name": lambda parts: parts.name.casefold(),
    "selected": lambda parts: parts.selected,
    "accepted": lambda parts: parts.accepted,
    "late": lambda parts: parts.late,
    "rejected": lambda parts: parts.rejected,
    "failed": lambda parts: parts.failed,
    "since": lambda parts: parts.since,
    "examples": lambda parts: _least(parts.examples),
    "median": lambda parts: _least(parts.median_seconds),
}
"""What the devices can be sorted by."""


def participation(
    principal: Principal,
    run_id: int,
    *,
    sort: str = "name",
    descending: bool = False,
    first: int | None = None,
    offset: int = 0,
) -> Participation:
    """Read who took part in a run.

    Args:
        sort: a key of `SORTS`.
        first: the first round to show; None for the newest rounds.

    Raises:
        NotFound: as `head_of`.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        newest = head.status.round or 0
        found = sorted(_all_parts(head.run, newest), key=lambda parts: parts.name.casefold())
        found.sort(key=SORTS[sort], reverse=descending)
        page = found[offset : offset + DEVICES_A_PAGE]
        start = max(1, newest - COLUMNS + 1) if first is None else max(1, min(first, newest))
        last = min(newest, start + COLUMNS - 1)
        return Participation(
            head=head,
            devices=page,
            cells=_cells(head.run, [parts.device_id for parts in page], start, last),
            first=start,
            last=last,
            newest=newest,
            total=len(found),
        )


def _all_parts(run: Run, newest: int) -> list[DeviceParts]:
    medians = _medians(run)
    return [
        DeviceParts(
            device_id=row["device_id"],
            name=row["device__name"],
            selected=row["selected"],
            accepted=row["accepted"],
            late=row["late"],
            rejected=row["rejected"],
            failed=row["failed"],
            since=newest - row["last"],
            examples=row["examples"],
            median_seconds=medians.get(row["device_id"]),
        )
        for row in _counted(run)
    ]


def _counted(run: Run) -> Iterable[Any]:
    """Return a dict for each device that was ever selected, counted by the database."""
    ended = {
        str(state): Count("pk", filter=Q(state=state))
        for state in (
            AssignmentState.ACCEPTED,
            AssignmentState.LATE,
            AssignmentState.REJECTED,
            AssignmentState.FAILED,
        )
    }
    rows = Assignment.objects.filter(round__run=run).order_by().values("device_id", "device__name")
    return rows.annotate(
        selected=Count("pk"),
        last=Max("round__number"),
        examples=Sum("update__num_examples", filter=Q(state=AssignmentState.ACCEPTED)),
        **ended,
    )


def _medians(run: Run) -> dict[int, float]:
    """Return the median time that each device took for an accepted update, in seconds."""
    accepted = Assignment.objects.filter(round__run=run, state=AssignmentState.ACCEPTED, ended_at__isnull=False)
    placed = accepted.order_by().annotate(
        seconds=_Seconds("ended_at", "assigned_at"),
        place=Window(RowNumber(), partition_by="device_id", order_by="seconds"),
        of=Window(Count("pk"), partition_by="device_id"),
    )
    # Of n in order, the one in the middle, or the two: twice its place is n + 1, or n and n + 2.
    middle = placed.annotate(off=2 * F("place") - F("of")).filter(off__gte=0, off__lte=2)
    found: dict[int, list[float]] = {}
    for device_id, seconds in middle.values_list("device_id", "seconds"):
        found.setdefault(device_id, []).append(seconds)
    return {device_id: sum(values) / len(values) for device_id, values in found.items()}


class _Seconds(Func):
    """How many seconds lie between two moments, the later one given first; by the database, not row by row."""

    arity = 2
    output_field = FloatField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        joined = {"template": "((julianday(%(expressions)s)) * 86400.0)", "arg_joiner": ") - julianday("}
        return self.as_sql(compiler, connection, **joined, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        joined = {"template": "EXTRACT(EPOCH FROM (%(expressions)s))::float8", "arg_joiner": " - "}
        return self.as_sql(compiler, connection, **joined, **context)


def _cells(run: Run, device_ids: Collection[int], first: int, last: int) -> dict[int, str]:
    letters = {device_id: [NOT_SELECTED] * max(0, last - first + 1) for device_id in device_ids}
    rows = Assignment.objects.filter(round__run=run, round__number__range=(first, last), device__in=device_ids)
    for device_id, number, state in rows.order_by().values_list("device_id", "round__number", "state"):
        letters[device_id][number - first] = LETTERS[state]
    return {device_id: "".join(row) for device_id, row in letters.items()}
