"""A run's series: every round, or of very many the least, mean and greatest of each column; gaps are never zeros."""

import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from edge.protocol.server import Spread
from fl.round_lines import RoundLine
from fl.series import MOST_POINTS, Point, earlier_facts, series_of
from tests.builders import NOW, at
from tests.services.programs import find_program

TELL = Path(__file__).parent.parent / "js" / "tell-series.mjs"


def line(number, accuracy=None, **changes):
    facts = {
        "state": "completed",
        "selected": 4,
        "updates_received": 4,
        "version": number,
        "metrics": {"accuracy": accuracy},
        "device_metrics": {"accuracy": Spread(mean=0.3, p10=0.2, p90=0.4)},
        "ended_at": at(number),
    }
    return RoundLine(number=number, **{**facts, **changes})


def accuracy_of(lines, **options):
    return series_of(lines, started_at=NOW, **options).metrics["accuracy"]


def test_up_to_two_thousand_rounds_are_told_one_by_one():
    lines = [line(number, number / MOST_POINTS) for number in range(1, MOST_POINTS + 1)]

    series = series_of(lines, started_at=NOW)

    assert series.first == series.last == list(range(1, MOST_POINTS + 1))
    assert (
        series.metrics["accuracy"].min == series.metrics["accuracy"].max == [each / MOST_POINTS for each in series.last]
    )
    assert series.seconds[:2] == [1.0, 2.0]


def test_a_peak_of_one_round_in_ten_thousand_is_not_lost():
    lines = [line(number, 0.9 if number == 4321 else 0.5) for number in range(1, 10_001)]

    series = series_of(lines, started_at=NOW, most=900)

    accuracy = series.metrics["accuracy"]
    peak = next(place for place, last in enumerate(series.last) if series.first[place] <= 4321 <= last)
    assert len(series.last) <= 900
    assert (series.first[0], series.last[-1]) == (1, 10_000)
    assert [place for place, value in enumerate(accuracy.max) if value == 0.9] == [peak]
    assert accuracy.min[peak] == 0.5 < accuracy.mean[peak] < 0.9


def test_of_rounds_in_columns_the_best_and_the_newest_value_are_those_of_one_round():
    measured = {432: {"accuracy": 0.9}, 433: {"accuracy": 0.9}, 999: {"accuracy": 0.6, "loss": 2.0}, 1000: {}}
    told = range(1, 1001)
    lines = [line(each, metrics=measured.get(each, {"accuracy": 0.5}), is_best=each == 432) for each in told]

    facts = earlier_facts(lines, median_seconds=1.5)

    assert facts.best == {"accuracy": Point(0.9, 432), "loss": Point(2.0, 999)}
    assert facts.last == {"accuracy": Point(0.6, 999), "loss": Point(2.0, 999)}
    assert (facts.best_line, facts.median_seconds) == (lines[431], 1.5)


def test_of_rounds_in_which_nothing_was_measured_nothing_is_the_best():
    facts = earlier_facts([line(1)], median_seconds=None)

    assert facts.best == facts.last == {"accuracy": None, "loss": None}
    assert facts.best_line is None


def test_columns_count_devices_updates_and_failures():
    failed = {"state": "failed", "version": None, "metrics": None, "updates_received": 1}
    lines = [line(1, 0.5), line(2, **failed), line(3, 0.5), line(4, 0.5)]

    series = series_of(lines, started_at=NOW, most=2)

    assert (series.selected, series.updates_received, series.failed) == ([8, 8], [5, 8], [1, 0])


def test_what_was_not_measured_is_a_gap_and_what_is_not_finite_is_named():
    lines = [line(1, 0.1), line(2, None), line(3, metrics={}), line(4, state="failed", version=None, metrics=None)]

    accuracy = accuracy_of(lines)

    assert accuracy.mean == [0.1, None, None, None]
    assert accuracy.not_finite == [2]


def test_an_open_round_is_not_there_yet():
    assert series_of([line(1, 0.1), line(2, state="training", version=None)], started_at=NOW).last == [1]


def test_where_the_server_has_no_data_the_devices_means_are_told():
    series = series_of([line(0, metrics=None, device_metrics={}), line(1, metrics=None)], started_at=NOW)

    assert series.on_devices
    assert series.metrics["accuracy"].mean == [None, 0.3]
    assert series.metrics["accuracy"].not_finite == []
    assert series.seconds == [0.0, 1.0]


@pytest.mark.parametrize("on_devices", [False, True])
def test_the_pages_scripts_draw_the_same(on_devices):
    node = find_program(["node"], "nodejs")
    metrics = {"metrics": None} if on_devices else {}
    lines = [line(0, 0.1, device_metrics={}, **metrics), line(1, 0.3, **metrics), line(2, None, **metrics)]
    lines.append(line(3, state="failed", version=None, metrics=None, device_metrics={}))
    lines.append(line(4, state="training", version=None, metrics=None))

    given = json.dumps({"rounds": msgspec.to_builtins(lines), "startedAt": NOW.isoformat()})
    told = json.loads(subprocess.run([node, TELL], input=given, capture_output=True, text=True, check=True).stdout)

    series = series_of(lines, started_at=NOW)
    accuracy = series.metrics["accuracy"]
    assert told == {
        "last": series.last,
        "seconds": series.seconds,
        "mean": accuracy.mean,
        "low": accuracy.p10,
        "high": accuracy.p90,
        "notFinite": accuracy.not_finite,
    }
