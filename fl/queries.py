"""What the pages read: each page's rows and the positions of its streams, as they were at one moment."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Q, QuerySet

from edge.protocol.server import DeviceStatus, FlStatusUpdate, Position, Spread, TrainingProgress
from fl.events import SYSTEM
from fl.exceptions import NotFound
from fl.lifecycle import OPEN_ASSIGNMENTS, OPEN_RUNS, AssignmentState, DeviceState
from fl.models import Assignment, Device, EnrollmentToken, Event, GlobalModel, Round, Run
from fl.payloads import assignment_progress, device_status_from, run_status_from, spreads
from fl.snapshots import consistent_read
from fl.visibility import Principal, audience_stream, runs_for, streams_for

RECENT_RUNS = 8
FEED_EVENTS = 160
"""How many events are read for a feed; not each of them is told."""

Positions = dict[str, Position]


@dataclass(frozen=True)
class RoundLine:
    """One round as ribbon, curve and table show it; number 0 is the initial evaluation."""

    number: int
    state: str
    reason: str = ""
    selected: int = 0
    updates_received: int = 0
    updates_lost: int = 0
    duration_seconds: float | None = None
    metrics: dict[str, float | None] | None = None
    device_metrics: dict[str, Spread] = field(default_factory=dict)
    version: int | None = None
    size_bytes: int | None = None
    is_best: bool = False


@dataclass(frozen=True)
class RunView:
    """A run with its rounds, oldest first, and the devices' parts of its newest round."""

    run: Run
    status: FlStatusUpdate
    rounds: list[RoundLine]
    progress: list[TrainingProgress]

    @property
    def newest(self) -> RoundLine | None:
        """The newest round that has a model."""
        return next((line for line in reversed(self.rounds) if line.version is not None), None)

    @property
    def before_newest(self) -> RoundLine | None:
        """The round with a model before the newest one."""
        published = [line for line in self.rounds if line.version is not None]
        return published[-2] if len(published) > 1 else None

    @property
    def best(self) -> RoundLine | None:
        """The round that made the best model."""
        return next((line for line in self.rounds if line.is_best), None)


@dataclass(frozen=True)
class Overview:
    """The overview, and the page of a run: one run with all around it."""

    view: RunView | None
    recent: list[Run]
    devices: list[DeviceStatus]
    events: list[Event]
    positions: Positions


@dataclass(frozen=True)
class RunList:
    """A page of the list of runs."""

    runs: list[Run]
    total: int
    positions: Positions


@dataclass(frozen=True)
class Fleet:
    """The devices, and the tokens that wait for one."""

    devices: list[DeviceStatus]
    rows: dict[int, Device]
    tokens: list[EnrollmentToken]
    positions: Positions


def overview(principal: Principal, run_id: int | None = None) -> Overview:
    """Read the run that is asked for, else the newest open one, else the newest one.

    Raises:
        NotFound: there is no such run, or none that this one may see.
    """
    with consistent_read():
        recent = list(runs_for(principal).select_related("best_model", "created_by").order_by("-pk")[:RECENT_RUNS])
        run = _chosen(principal, recent, run_id)
        assignments = _assignments(run)
        shown = [run, *recent] if run else recent
        return Overview(
            view=_run_view(run, assignments) if run else None,
            recent=recent,
            devices=_device_statuses(assignments),
            events=_feed_events(principal, run),
            positions=_positions(principal, shown),
        )


def run_list(principal: Principal, *, state: str = "", offset: int = 0, limit: int = 25) -> RunList:
    """Read a page of runs, newest first; `state` keeps those in one state."""
    with consistent_read():
        runs = runs_for(principal).select_related("best_model", "created_by")
        if state:
            runs = runs.filter(state=state)
        page = list(_with_rounds(runs).order_by("-pk")[offset : offset + limit])
        return RunList(runs=page, total=runs.count(), positions=_positions(principal, page))


def fleet(principal: Principal, *, with_tokens: bool = False) -> Fleet:
    """Read all devices, and where asked for, the enrolment tokens."""
    with consistent_read():
        devices = _devices()
        open_ones = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round")
        return Fleet(
            devices=_statuses(devices, open_ones),
            rows={device.pk: device for device in devices},
            tokens=list(EnrollmentToken.objects.filter(used_at__isnull=True)[:20]) if with_tokens else [],
            positions=_positions(principal, []),
        )


def visible_run(principal: Principal, run_id: int) -> Run:
    """Return a run that this one may see.

    Raises:
        NotFound: there is none.
    """
    run = runs_for(principal).select_related("best_model", "created_by").filter(pk=run_id).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run


def ready_devices(task_digests: Collection[str]) -> dict[str, int]:
    """Count, for each task digest, the active devices that are online and offer it."""
    ready = Device.objects.filter(
        state=DeviceState.ACTIVE, lease__closed_at__isnull=True, lease__isnull=False, tasks__digest__in=task_digests
    )
    counted = ready.values("tasks__digest").annotate(devices=Count("pk", distinct=True))
    counts = dict.fromkeys(task_digests, 0)
    counts.update({row["tasks__digest"]: row["devices"] for row in counted if row["tasks__digest"] in counts})
    return counts


def median_seconds(rounds: Iterable[RoundLine]) -> float | None:
    """Return the median duration of the rounds that were completed."""
    durations = sorted(line.duration_seconds for line in rounds if line.duration_seconds is not None)
    if not durations:
        return None
    middle = len(durations) // 2
    return durations[middle] if len(durations) % 2 else (durations[middle - 1] + durations[middle]) / 2


# ── one run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _chosen(principal: Principal, recent: Sequence[Run], run_id: int | None) -> Run | None:
    if run_id is not None:
        known = next((run for run in recent if run.pk == run_id), None)
        return known or visible_run(principal, run_id)
    newest_open = next((run for run in recent if run.state in OPEN_RUNS), None)
    return newest_open or next(iter(recent), None)


def _run_view(run: Run, assignments: Sequence[Assignment]) -> RunView:
    rounds = list(_counted(run.round_set.all()).order_by("number"))
    models = {
        model.round_id: model
        for model in GlobalModel.objects.filter(run=run, published_at__isnull=False).order_by("version")
    }
    current = rounds[-1] if rounds else None
    parts = [row for row in assignments if current is not None and row.round_id == current.pk]
    newest = list(models.values())[-1] if models else None
    lines = [_line(round_, models.get(round_.pk), run) for round_ in rounds]
    if None in models:
        lines.insert(0, _initial_line(models[None], run))
    return RunView(
        run=run,
        status=run_status_from(run, current, [row.state for row in parts], newest),
        rounds=lines,
        progress=[
            assignment_progress(row, getattr(row, "update", None))
            for row in sorted(parts, key=lambda row: row.device.name)
        ],
    )


def _counted(rounds: QuerySet[Round]) -> QuerySet[Round]:
    ended = Q(assignments__state__in=set(AssignmentState) - OPEN_ASSIGNMENTS - {AssignmentState.ACCEPTED})
    return rounds.annotate(
        selected=Count("assignments"),
        received=Count("assignments", filter=Q(assignments__state=AssignmentState.ACCEPTED)),
        lost=Count("assignments", filter=ended),
    )


def _line(round_: Round, model: GlobalModel | None, run: Run) -> RoundLine:
    counts = vars(round_)  # the annotations of _counted
    took = (round_.ended_at - round_.started_at).total_seconds() if round_.ended_at and round_.started_at else None
    return RoundLine(
        number=round_.number,
        state=round_.state,
        reason=round_.reason,
        selected=counts["selected"],
        updates_received=counts["received"],
        updates_lost=counts["lost"],
        duration_seconds=took,
        metrics=model.metrics if model else None,
        device_metrics=spreads(round_.device_metrics),
        version=model.version if model else None,
        size_bytes=model.size if model else None,
        is_best=model is not None and run.best_model_id == model.pk,
    )


def _initial_line(model: GlobalModel, run: Run) -> RoundLine:
    return RoundLine(
        number=0,
        state="initial",
        metrics=model.metrics,
        version=model.version,
        size_bytes=model.size,
        is_best=run.best_model_id == model.pk,
    )


def _assignments(run: Run | None) -> list[Assignment]:
    """Read the open assignments of all devices, and all of a run's newest round, in one query."""
    wanted = Q(state__in=OPEN_ASSIGNMENTS)
    if run is not None:
        newest_round = Round.objects.filter(run=run).order_by("-number").values("pk")[:1]
        wanted |= Q(round__in=newest_round)
    rows = Assignment.objects.filter(wanted).select_related("round", "device", "update")
    return list(rows.order_by("round", "cohort_index"))


def _with_rounds(runs: QuerySet[Run]) -> QuerySet[Run]:
    return runs.annotate(rounds_done=Count("round_set", filter=Q(round_set__ended_at__isnull=False)))


# ── devices, events, positions ────────────────────────────────────────────────────────────────────────────────────────


def _devices() -> list[Device]:
    return list(Device.objects.select_related("lease").prefetch_related("tasks").order_by("name"))


def _device_statuses(assignments: Iterable[Assignment]) -> list[DeviceStatus]:
    return _statuses(_devices(), assignments)


def _statuses(devices: Iterable[Device], assignments: Iterable[Assignment]) -> list[DeviceStatus]:
    open_ones = {row.device_id: row for row in assignments if row.state in OPEN_ASSIGNMENTS}
    return [device_status_from(device, open_ones.get(device.pk)) for device in devices]


def _feed_events(principal: Principal, run: Run | None) -> list[Event]:
    """Read the newest events of a run and of the whole server, oldest first."""
    names = [SYSTEM, audience_stream("dashboard"), audience_stream("general"), *([run.stream] if run else [])]
    visible = streams_for(principal).filter(name__in=names).values("name")
    newest = Event.objects.filter(stream__in=visible).order_by("-timestamp", "-pk")[:FEED_EVENTS]
    return _oldest_first(newest)


def _oldest_first(newest_first: Iterable[Event]) -> list[Event]:
    # Within a stream the order is that of seq; between streams, that of the server's clock.
    by_stream: dict[str, list[Event]] = defaultdict(list)
    for event in newest_first:
        by_stream[event.stream_id].append(event)
    ordered = [sorted(events, key=lambda event: event.seq) for events in by_stream.values()]
    return sorted((event for events in ordered for event in events), key=_moment)


def _moment(event: Event) -> datetime:
    return event.timestamp


def _positions(principal: Principal, runs: Iterable[Run]) -> Positions:
    """Return where the streams stand that a page is about: those of its runs, and the server's own."""
    names = {run.stream for run in runs} | {SYSTEM, audience_stream("dashboard"), audience_stream("general")}
    seen = streams_for(principal).filter(name__in=names)
    return {name: Position(epoch=epoch, seq=head) for name, epoch, head in seen.values_list("name", "epoch", "head")}
