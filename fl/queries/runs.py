"""A run as pages show it, with all around it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Count, Q, QuerySet

from edge.protocol.server import DeviceStatus, FlStatusUpdate, TrainingProgress
from fl.exceptions import InTrash, NotFound
from fl.feed import TROUBLED
from fl.lifecycle import OPEN_ASSIGNMENTS, OPEN_RUNS, AssignmentState, RoundState
from fl.models import Assignment, Event, GlobalModel, Round, Run
from fl.payloads import assignment_progress, run_status_from, spreads
from fl.queries.devices import all_devices, statuses
from fl.queries.events import feed_events
from fl.queries.marks import Mark, pauses_of
from fl.queries.positions import Positions, positions_of
from fl.round_lines import RoundLine
from fl.snapshots import consistent_read
from fl.trash import goes_at
from fl.visibility import Principal, runs_for, trash_for

RECENT_RUNS = 8


@dataclass(frozen=True)
class RunView:
    """A run with its rounds, oldest first, the devices' parts of its newest round, and the marks of its curve."""

    run: Run
    status: FlStatusUpdate
    rounds: list[RoundLine]
    progress: list[TrainingProgress]
    marks: list[Mark]

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


def overview(principal: Principal, run_id: int | None = None) -> Overview:
    """Read the run that is asked for, else the newest open one, else the newest one.

    Raises:
        NotFound: there is no such run, or none that this one may see.
    """
    with consistent_read():
        recent = list(runs_for(principal).select_related("best_model", "created_by").order_by("-pk")[:RECENT_RUNS])
        run = _chosen(principal, recent, run_id)
        assignments = _assignments(run)
        positions = positions_of(principal, [run, *recent] if run else recent)
        return Overview(
            view=_run_view(run, assignments) if run else None,
            recent=recent,
            devices=statuses(all_devices(), assignments),
            events=feed_events(positions, run),
            positions=positions,
        )


def visible_run(principal: Principal, run_id: int) -> Run:
    """Return a run that this one may see.

    Raises:
        InTrash: it was moved to the trash.
        NotFound: there is none.
    """
    run = runs_for(principal).select_related("best_model", "created_by").filter(pk=run_id).first()
    if run is not None:
        return run
    gone = trash_for(principal).filter(pk=run_id).first()
    if gone is None or gone.deleted_at is None:
        raise NotFound(f"there is no run {run_id}")
    raise InTrash(
        gone.pk, label=gone.label, name=gone.name, deleted_at=gone.deleted_at, goes_at=goes_at(gone.deleted_at)
    )


def median_seconds(rounds: Iterable[RoundLine]) -> float | None:
    """Return the median duration of the rounds that were completed."""
    completed = (line.duration_seconds for line in rounds if line.state == RoundState.COMPLETED)
    durations = sorted(seconds for seconds in completed if seconds is not None)
    if not durations:
        return None
    middle = len(durations) // 2
    return durations[middle] if len(durations) % 2 else (durations[middle - 1] + durations[middle]) / 2


def round_lines(run: Run, rounds: QuerySet[Round]) -> list[RoundLine]:
    """Return some rounds of a run as lines, the first one first, in two queries.

    Args:
        rounds: may be cut to a page; nothing is read of others.
    """
    counted = list(_counted(Round.objects.filter(pk__in=rounds.values("pk"))).order_by("number"))
    models = GlobalModel.objects.filter(round__in=counted, published_at__isnull=False)
    by_round = {model.round_id: model for model in models}
    return [_line(round_, by_round.get(round_.pk), run) for round_ in counted]


def all_lines(run: Run) -> list[RoundLine]:
    """Read all rounds of a run, oldest first, with the initial evaluation as round 0."""
    return _lines(run, list(_counted(run.round_set.all()).order_by("number")), _models(run))


def initial_line(run: Run) -> RoundLine | None:
    """Return the initial evaluation as a line, once it is published."""
    model = GlobalModel.objects.filter(run=run, version=0, published_at__isnull=False).first()
    return _initial_line(model, run) if model else None


# ── one run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _chosen(principal: Principal, recent: Sequence[Run], run_id: int | None) -> Run | None:
    if run_id is not None:
        known = next((run for run in recent if run.pk == run_id), None)
        return known or visible_run(principal, run_id)
    newest_open = next((run for run in recent if run.state in OPEN_RUNS), None)
    return newest_open or next(iter(recent), None)


def _run_view(run: Run, assignments: Sequence[Assignment]) -> RunView:
    rounds = list(_counted(run.round_set.all()).order_by("number"))
    models = _models(run)
    current = rounds[-1] if rounds else None
    parts = [row for row in assignments if current is not None and row.round_id == current.pk]
    newest = list(models.values())[-1] if models else None
    return RunView(
        run=run,
        status=run_status_from(run, current, [row.state for row in parts], newest),
        rounds=_lines(run, rounds, models),
        progress=in_order([assignment_progress(row, getattr(row, "update", None)) for row in parts]),
        marks=pauses_of(run),
    )


def in_order(parts: Iterable[TrainingProgress]) -> list[TrainingProgress]:
    """Order the devices' parts of a round by name, those in trouble first."""
    return sorted(parts, key=lambda part: (part.phase not in TROUBLED, part.device_name or ""))


def _models(run: Run) -> dict[int | None, GlobalModel]:
    """Read the published models of a run by their rounds, oldest first; the initial one has none."""
    published = GlobalModel.objects.filter(run=run, published_at__isnull=False).order_by("version")
    return {model.round_id: model for model in published.only("run", "round", "version", "metrics", "size")}


def _lines(run: Run, rounds: Sequence[Round], models: dict[int | None, GlobalModel]) -> list[RoundLine]:
    lines = [_line(round_, models.get(round_.pk), run) for round_ in rounds]
    if None in models:
        lines.insert(0, _initial_line(models[None], run))
    return lines


_SHOWN_OF_A_ROUND = "run", "number", "state", "reason", "started_at", "deadline_at", "ended_at", "device_metrics"


def _counted(rounds: QuerySet[Round]) -> QuerySet[Round]:
    ended = Q(assignments__state__in=set(AssignmentState) - OPEN_ASSIGNMENTS - {AssignmentState.ACCEPTED})
    # A long run has thousands, and half of what reading one takes are the times that no page shows.
    return rounds.only(*_SHOWN_OF_A_ROUND).annotate(
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
        ended_at=round_.ended_at,
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
