"""Several runs side by side: what their models measured, what differs in their settings, and who was left out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils.translation import gettext

from edge.protocol.server import FlStatusUpdate
from fl import feed
from fl.lifecycle import RoundState
from fl.metrics import SIGNS, measured
from fl.models import GlobalModel, Round, Run
from fl.queries.positions import Positions, positions_of
from fl.queries.run_list import run_number
from fl.series import MOST_POINTS, Point, extremes_of
from fl.snapshots import consistent_read, standings_of, with_newest
from fl.visibility import Principal, runs_for

MOST = 6
"""How many runs one can tell apart by colour and dashes."""
OFFERED = 30
"""How many of the newest other runs are offered to be added."""
NEWEST = 100
"""So many of a run's newest rounds are told one by one, however many runs there are."""


@dataclass
class Curve:
    """What the models of a run measured, oldest first: columns of one length.

    Attributes:
        on_devices: these are the devices' weighted means: the server has no data of the task.
        seconds: from the start of the run to the model's publication, or to the failure of the round.
        accuracy: None where nothing finite was measured, as in a round that failed; likewise `loss`.
    """

    run_id: int
    started_at: datetime | None
    on_devices: bool = False
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: list[float | None] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)

    def best(self, name: str) -> Point | None:
        """Return the best value of a metric and the first round that had it."""
        known = self._known(name)
        return Point(*max(known, key=lambda pair: SIGNS[name] * pair[0])) if known else None

    def last(self, name: str) -> Point | None:
        """Return the newest value of a metric."""
        known = self._known(name)
        return Point(*known[-1]) if known else None

    def drawn(self, most: int) -> "DrawnCurve":
        """Return it as scripts draw it, in at most so many columns, which are to be more than NEWEST."""
        older = max(0, len(self.rounds) - NEWEST)
        size = math.ceil(older / max(1, most - NEWEST)) if len(self.rounds) > most else 1
        columns = {name: self._columns(name, older, size) for name in SIGNS}
        ends = [min(start + size, older) - 1 for start in range(0, older, size)]
        return DrawnCurve(
            run_id=self.run_id,
            started_at=self.started_at,
            on_devices=self.on_devices,
            first=[*self.rounds[:older:size], *self.rounds[older:]],
            rounds=[*(self.rounds[end] for end in ends), *self.rounds[older:]],
            seconds=[*(self.seconds[end] for end in ends), *self.seconds[older:]],
            accuracy=columns["accuracy"][1],
            loss=columns["loss"][1],
            low={name: low for name, (low, _, _) in columns.items()},
            high={name: high for name, (_, _, high) in columns.items()},
            best={name: self.best(name) for name in SIGNS},
            last={name: self.last(name) for name in SIGNS},
        )

    def _columns(self, name: str, older: int, size: int) -> "tuple[list[float | None], ...]":
        """Return the least, the mean and the greatest; of columns that are one round only the mean, as it is."""
        values = self._values(name)
        if size == 1:
            return [], values, []
        low, mean, high = extremes_of(values[:older], size)
        return low, [*mean, *values[older:]], high

    def _values(self, name: str) -> list[float | None]:
        values: list[float | None] = getattr(self, name)
        return values

    def _known(self, name: str) -> list[tuple[float, int]]:
        """Return the values that there are, each with its round, oldest first."""
        values = zip(self._values(name), self.rounds, strict=True)
        return [(value, number) for value, number in values if value is not None]


@dataclass(frozen=True)
class DrawnCurve:
    """A curve as scripts draw it: its newest rounds one by one, those before them, where they are many, in columns.

    Attributes:
        first, rounds: the first and the last round of each column; the same where a column is one round.
        seconds: of each column's last round.
        accuracy, loss: the mean of each column.
        low, high: metric → the least and the greatest value of each column of several rounds; these columns come first.
        best, last: metric → as `Curve` knows them.
    """

    run_id: int
    started_at: datetime | None
    on_devices: bool
    first: list[int]
    rounds: list[int]
    seconds: list[float]
    accuracy: list[float | None]
    loss: list[float | None]
    low: dict[str, list[float | None]]
    high: dict[str, list[float | None]]
    best: dict[str, Point | None]
    last: dict[str, Point | None]


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs, in the order in which they were asked for."""

    run: Run
    status: FlStatusUpdate
    curve: Curve


@dataclass(frozen=True)
class Setting:
    """A setting of all the runs."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        """Whether the runs do not agree."""
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Comparison:
    """The runs that are compared, and all that is said of them."""

    runs: list[ComparedRun]
    settings: list[Setting]
    left_out: list[str]
    """A clause for each run that was asked for and is not here."""
    others: list[Run]
    """Newest first: what could be added."""
    positions: Positions

    def drawn(self) -> list[DrawnCurve]:
        """Return the curves as scripts draw them: all together not much more than a chart has pixels."""
        return [each.curve.drawn(MOST_POINTS // len(self.runs)) for each in self.runs]


def comparison(principal: Principal, wanted: Iterable[str]) -> Comparison:
    """Read the runs that are asked for, by number or label, as far as there are some and one may see them."""
    texts = list(dict.fromkeys(text.strip() for text in wanted if text.strip()))
    numbers = {text: run_number(text) for text in texts}
    with consistent_read():
        visible = runs_for(principal)
        asked = [number for number in dict.fromkeys(numbers.values()) if number is not None]
        rows = with_newest(visible.filter(pk__in=asked)).select_related("best_model")
        found = {run.pk: run for run in rows}
        shown = [found[number] for number in asked if number in found][:MOST]
        curves = _curves(shown)
        return Comparison(
            runs=[ComparedRun(each.run, each.status, curves[each.run.pk]) for each in standings_of(shown)],
            settings=settings_of(shown),
            left_out=_left_out(numbers, found, shown),
            others=list(visible.exclude(pk__in=[run.pk for run in shown]).order_by("-pk")[:OFFERED]),
            positions=positions_of(principal, shown),
        )


def _left_out(numbers: Mapping[str, int | None], found: Mapping[int, Run], shown: Sequence[Run]) -> list[str]:
    clauses = []
    for text, number in numbers.items():
        run = found.get(number) if number is not None else None
        if run is None:
            clause = gettext("there is no run “{text}”, or none that you may see")
            clauses.append(clause.format(text=text[:40]))
        elif run not in shown:
            clause = gettext("{label} {name} is one too many: at most {most} runs are compared")
            clauses.append(clause.format(label=run.label, name=run.name, most=MOST))
    return clauses


# ── curves ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curves(runs: Sequence[Run]) -> dict[int, Curve]:
    curves = {run.pk: Curve(run.pk, run.started_at) for run in runs}
    for run_id, number, moment, values, on_devices in sorted(
        [*_published(runs), *_failed(runs)], key=lambda row: row[:2]
    ):
        curve = curves[run_id]
        curve.rounds.append(number)
        began = curve.started_at or moment
        curve.seconds.append(max(0.0, (moment - began).total_seconds()))
        curve.accuracy.append(values.get("accuracy"))
        curve.loss.append(values.get("loss"))
        curve.on_devices = curve.on_devices or on_devices
    return curves


_Row = tuple[int, int, datetime, Mapping[str, float | None], bool]
"""Run, round, when, what was measured, and whether on devices."""


def _published(runs: Sequence[Run]) -> Iterable[_Row]:
    models = GlobalModel.objects.filter(run__in=runs, published_at__isnull=False).order_by()
    columns = ("run_id", "round__number", "published_at", "metrics", "round__device_metrics")
    for run_id, number, moment, metrics, device_metrics in models.values_list(*columns):
        if moment is not None:  # as filtered
            yield run_id, number or 0, moment, measured(metrics, device_metrics or {}), metrics is None


def _failed(runs: Sequence[Run]) -> Iterable[_Row]:
    rounds = Round.objects.filter(run__in=runs, state=RoundState.FAILED, ended_at__isnull=False).order_by()
    for run_id, number, moment in rounds.values_list("run_id", "number", "ended_at"):
        if moment is not None:  # as filtered
            yield run_id, number, moment, {}, False


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Return the settings of runs; what one of them does not have is a dash."""
    tables = [_settings(run) for run in runs]
    # In the order of the run that has most of them, so that what only some have stands where it belongs.
    names = dict.fromkeys(name for table in sorted(tables, key=len, reverse=True) for name in table)
    return [Setting(name, [table.get(name, "–") for table in tables]) for name in names]


def _settings(run: Run) -> dict[str, str]:
    """Return what a run was made with, as a table of texts in the order in which it is read."""
    return {
        gettext("Task"): run.task,
        gettext("Task’s model"): run.task_digest[:12],
        gettext("Strategy"): run.strategy,
        **{f"{run.strategy}: {name}": _number(value) for name, value in run.strategy_config.items()},
        **dict(_step(step) for step in run.steps),
        gettext("Rounds"): str(run.rounds),
        gettext("Devices in a round"): str(run.cohort_size),
        gettext("Quorum"): str(run.quorum),
        gettext("Local epochs"): str(run.local_epochs),
        gettext("Batch size"): str(run.batch_size),
        gettext("Learning rate"): _number(run.learning_rate),
        gettext("Momentum"): _number(run.momentum),
        gettext("Patience"): feed.seconds(run.cohort_wait_seconds),
        gettext("Deadline"): feed.seconds(run.deadline_seconds),
        gettext("Least examples"): str(run.min_examples),
        gettext("Largest update norm"): gettext("no limit")
        if run.max_update_norm is None
        else _number(run.max_update_norm),
        gettext("Seed"): str(run.seed),
        gettext("Public"): gettext("yes") if run.public else gettext("no"),
        gettext("Updates are kept"): gettext("yes") if run.keep_updates else gettext("no"),
    }


def _step(step: Mapping[str, object]) -> tuple[str, str]:
    config = step.get("config")
    values = config.items() if isinstance(config, Mapping) else ()
    label = gettext("Step {name}").format(name=step.get("name"))
    return label, ", ".join(f"{name} {_plain(value)}" for name, value in values) or gettext("yes")


def _plain(value: object) -> str:
    return feed.plain(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return feed.plain(value, 6)
