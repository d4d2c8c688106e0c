"""A run's rounds as series for a chart: every round, or of very many what each of a few columns of them holds.

A column is told as the least, the mean and the greatest of its rounds, so that no peak is lost, as a sample would.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fl.metrics import SIGNS
from fl.round_lines import RoundLine

METRICS = ("accuracy", "loss")
MOST_POINTS = 2000
"""Up to so many rounds are told one by one."""


@dataclass(frozen=True)
class MetricSeries:
    """One metric, a value for each column; None where nothing finite was measured.

    Attributes:
        p10, p90: of the devices' own values; in a column of several rounds the lowest p10 and the highest p90.
        not_finite: the rounds whose value was measured and is no finite number.
    """

    min: list[float | None]
    mean: list[float | None]
    max: list[float | None]
    p10: list[float | None]
    p90: list[float | None]
    not_finite: list[int]


@dataclass(frozen=True)
class Series:
    """The rounds of a run that have a model, or failed, in columns.

    Attributes:
        first, last: numbers of the first and the last round of each column; the same where a column is one round.
        seconds: from the start of the run to the end of the column's last round.
        selected, updates_received: devices of all rounds of each column, and updates that they got.
        failed: how many rounds of each column failed.
        on_devices: the server has no data of the task, so that the devices' weighted means are told.
    """

    first: list[int]
    last: list[int]
    seconds: list[float | None]
    metrics: dict[str, MetricSeries]
    selected: list[int]
    updates_received: list[int]
    failed: list[int]
    on_devices: bool


@dataclass(frozen=True)
class Point:
    """A value of a metric, and the round whose model it is of."""

    value: float
    round: int


@dataclass(frozen=True)
class EarlierFacts:
    """What columns of several rounds do not say of the rounds in them.

    Attributes:
        best, last: metric → its best value with the first round that had it, and its newest value.
        best_line: the round that made the run's best model, if it is one of these.
        median_seconds: how long the completed rounds of the whole run took, these and those after them.
    """

    best: dict[str, Point | None]
    last: dict[str, Point | None]
    best_line: RoundLine | None
    median_seconds: float | None


def earlier_facts(lines: Sequence[RoundLine], *, median_seconds: float | None) -> EarlierFacts:
    """Return what is to be known of rounds, oldest first, beside their columns."""
    on_devices = is_measured_on_devices(lines)
    known = {name: _points(lines, name, on_devices) for name in METRICS}
    return EarlierFacts(
        best={name: _best(points, name) for name, points in known.items()},
        last={name: points[-1] if points else None for name, points in known.items()},
        best_line=next((line for line in lines if line.is_best), None),
        median_seconds=median_seconds,
    )


def _points(lines: Sequence[RoundLine], name: str, on_devices: bool) -> list[Point]:
    values = ((value_of(line, name, on_devices), line.number) for line in lines)
    return [Point(value, number) for value, number in values if value is not None]


def _best(points: Sequence[Point], name: str) -> Point | None:
    return max(points, key=lambda point: SIGNS[name] * point.value, default=None)


def is_measured_on_devices(lines: Sequence[RoundLine]) -> bool:
    """Say whether the server had nothing to measure with, so that the devices' own means are all there is."""
    published = [line for line in lines if line.version is not None]
    return bool(published) and all(line.metrics is None for line in published)


def series_of(lines: Sequence[RoundLine], *, started_at: datetime | None, most: int = MOST_POINTS) -> Series:
    """Return the series of a run.

    Args:
        lines: its rounds, oldest first.
        started_at: when the run began.
        most: how many columns at most, at least 1.
    """
    shown = [line for line in lines if line.version is not None or line.state == "failed"]
    size = max(1, math.ceil(len(shown) / most))
    columns = [shown[start : start + size] for start in range(0, len(shown), size)]
    on_devices = is_measured_on_devices(shown)
    return Series(
        first=[column[0].number for column in columns],
        last=[column[-1].number for column in columns],
        seconds=[_seconds(column[-1], started_at) for column in columns],
        metrics={name: _metric(columns, name, on_devices) for name in METRICS},
        selected=[sum(line.selected for line in column) for column in columns],
        updates_received=[sum(line.updates_received for line in column) for column in columns],
        failed=[sum(line.state == "failed" for line in column) for column in columns],
        on_devices=on_devices,
    )


def extremes_of(
    values: Sequence[float | None], size: int
) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Return the least, the mean and the greatest of each so many values in a row; None where there are none.

    They are for a chart, so six digits of each are enough.
    """
    columns = [[value for value in values[at : at + size] if value is not None] for at in range(0, len(values), size)]
    return (
        [_shortly(min(column)) if column else None for column in columns],
        [_shortly(sum(value / len(column) for value in column)) if column else None for column in columns],
        [_shortly(max(column)) if column else None for column in columns],
    )


def _shortly(value: float) -> float:
    return float(f"{value:.6g}")


def value_of(line: RoundLine, name: str, on_devices: bool) -> float | None:
    """Return a metric of a round as the server measured it, or the devices' weighted mean; None where not finite."""
    if on_devices:
        spread = line.device_metrics.get(name)
        return _finite(spread.mean if spread else None)
    return _finite(line.metrics.get(name) if line.metrics else None)


def _metric(columns: Sequence[Sequence[RoundLine]], name: str, on_devices: bool) -> MetricSeries:
    def each(reduce: Callable[[list[float]], float], read: Callable[[RoundLine], float | None]) -> list[float | None]:
        found = [[value for line in column if (value := read(line)) is not None] for column in columns]
        return [reduce(values) if values else None for values in found]

    def measured(line: RoundLine) -> float | None:
        return value_of(line, name, on_devices)

    return MetricSeries(
        min=each(min, measured),
        mean=each(lambda values: sum(values) / len(values), measured),
        max=each(max, measured),
        p10=each(min, lambda line: _quantile(line, name, "p10")),
        p90=each(max, lambda line: _quantile(line, name, "p90")),
        not_finite=[line.number for column in columns for line in column if is_not_finite(line, name, on_devices)],
    )


def is_not_finite(line: RoundLine, name: str, on_devices: bool) -> bool:
    """Say whether a metric was measured and came out as no finite number, which is kept as None."""
    if on_devices:
        return name in line.device_metrics and _finite(line.device_metrics[name].mean) is None
    return line.metrics is not None and name in line.metrics and _finite(line.metrics[name]) is None


def _quantile(line: RoundLine, name: str, which: str) -> float | None:
    spread = line.device_metrics.get(name)
    return _finite(getattr(spread, which)) if spread else None


def _seconds(line: RoundLine, started_at: datetime | None) -> float | None:
    if line.number == 0:
        return 0.0
    return (line.ended_at - started_at).total_seconds() if line.ended_at and started_at else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
