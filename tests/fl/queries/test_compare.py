"""Runs side by side: points as they were measured, settings that differ, and who was left out."""

import math

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fl.coordination import advance_run
from fl.queries.compare import MOST, NEWEST, Curve, comparison, settings_of
from fl.roles import Role
from fl.rounds import newest_model
from fl.series import Point
from fl.visibility import Principal
from tests.builders import NOW, at, current_round, fleet, started_run, step

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)


def compared(*runs):
    return comparison(VIEWER, [str(run.pk) for run in runs])


def train_a_round(run, devices, now):
    number = current_round(run).number
    step(run, now)
    for device in devices:
        device.send(now=now)
    while current_round(run).number == number and step(run, now):
        pass
    run.refresh_from_db()


def test_a_curve_has_every_model_and_when_it_came():
    devices = fleet(2)
    run = started_run()
    train_a_round(run, devices, at(5))

    (found,) = compared(run).runs

    models = run.models.order_by("version")
    assert found.curve.rounds == [0, 1]
    assert found.curve.seconds == [(model.published_at - run.started_at).total_seconds() for model in models]
    assert found.curve.seconds[1] >= 5
    assert found.curve.loss == [model.metrics["loss"] for model in models]
    assert not found.curve.on_devices


def test_a_round_that_failed_is_a_gap():
    fleet(2)
    run = started_run()
    step(run)
    step(run, at(61))
    advance_run(run.pk, lambda: at(61))

    (found,) = compared(run).runs

    assert found.curve.rounds == [0, 1]
    assert found.curve.loss[1] is None
    begun = (newest_model(run).published_at - NOW).total_seconds()
    assert found.curve.seconds == [begun, 61.0]


def test_without_data_here_the_means_on_devices_are_the_curve():
    devices = fleet(2)
    run = started_run()
    train_a_round(run, devices, at(5))
    run.models.update(metrics=None)

    (found,) = compared(run).runs

    mean = run.round_set.get(number=1).device_metrics["loss"]["mean"]
    assert found.curve.on_devices
    assert found.curve.loss == [None, mean]


def test_best_is_the_first_of_the_best_and_last_the_newest_that_was_measured():
    curve = Curve(1, None, rounds=[0, 1, 2, 3], accuracy=[0.1, 0.9, 0.9, None], loss=[None, 2.0, 1.0, 3.0])

    assert curve.best("accuracy") == Point(0.9, 1)
    assert curve.last("accuracy") == Point(0.9, 2)
    assert curve.best("loss") == Point(1.0, 2)
    assert curve.last("loss") == Point(3.0, 3)
    assert Curve(1, None).best("loss") is None


def long_curve(rounds):
    numbers = range(rounds)
    accuracy = [math.sqrt(number / rounds) for number in numbers]
    seconds, loss = [math.pi * number for number in numbers], [1 - value for value in accuracy]
    return Curve(1, NOW, rounds=[*numbers], seconds=seconds, accuracy=accuracy, loss=loss)


def test_a_curve_that_has_room_is_drawn_point_by_point():
    curve = long_curve(500)

    drawn = curve.drawn(500)

    assert drawn.first == drawn.rounds == curve.rounds
    assert (drawn.seconds, drawn.accuracy, drawn.loss) == (curve.seconds, curve.accuracy, curve.loss)
    assert drawn.low == drawn.high == {"accuracy": [], "loss": []}


@pytest.mark.parametrize("rounds", [501, 1900, 10_000])
def test_of_a_long_curve_the_newest_rounds_are_drawn_one_by_one_and_those_before_in_columns_without_holes(rounds):
    curve = long_curve(rounds)

    drawn = curve.drawn(500)

    columns = len(drawn.rounds)
    assert columns <= 500
    assert {len(column) for column in (drawn.first, drawn.seconds, drawn.accuracy, drawn.loss)} == {columns}
    assert {len(column) for column in (*drawn.low.values(), *drawn.high.values())} == {columns - NEWEST}
    assert (drawn.first[0], drawn.rounds[-1]) == (0, rounds - 1)
    assert drawn.first[1:] == [last + 1 for last in drawn.rounds[:-1]]
    assert drawn.first[-NEWEST:] == drawn.rounds[-NEWEST:]
    assert drawn.accuracy[-NEWEST:] == curve.accuracy[-NEWEST:]
    assert drawn.seconds == [curve.seconds[last] for last in drawn.rounds]


def test_no_peak_of_a_long_curve_is_lost_and_its_ends_are_known():
    curve = long_curve(10_000)
    curve.accuracy[4321] = 2.0
    curve.loss[4000:5000] = [None] * 1000

    drawn = curve.drawn(500)

    place = next(place for place, last in enumerate(drawn.rounds) if last >= 4321)
    assert drawn.high["accuracy"].index(2.0) == place
    assert drawn.low["accuracy"][place] < drawn.accuracy[place] < 2.0
    assert drawn.low["loss"][place] is drawn.loss[place] is drawn.high["loss"][place] is None
    assert drawn.best["accuracy"] == Point(2.0, 4321)
    assert drawn.last["loss"] == Point(curve.loss[-1], 9999)


def test_only_what_differs_differs():
    settings = settings_of([started_run(seed=1), started_run(seed=2, strategy="fedprox")])

    differing = {setting.name: setting.values for setting in settings if setting.differs}
    assert differing == {
        "Strategy": ["fedavg", "fedprox"],
        "fedprox: mu": ["–", "0.01"],
        "Seed": ["1", "2"],
    }


def test_runs_come_as_they_were_asked_for_and_once():
    first, second = started_run(), started_run()

    found = comparison(VIEWER, [second.label, str(first.pk), str(second.pk), ""])

    assert [each.run.pk for each in found.runs] == [second.pk, first.pk]
    assert found.left_out == []


def test_who_is_left_out_is_said():
    made = [started_run(name=f"run {number}") for number in range(MOST + 1)]

    found = comparison(VIEWER, ["nonsense", "999999", *(str(run.pk) for run in made)])

    assert len(found.runs) == MOST
    assert found.left_out == [
        "there is no run “nonsense”, or none that you may see",
        "there is no run “999999”, or none that you may see",
        f"{made[-1].label} run {MOST} is one too many: at most {MOST} runs are compared",
    ]


def test_a_run_that_one_may_not_see_is_left_out():
    run = started_run()

    found = comparison(Principal(), [str(run.pk)])

    assert found.runs == found.others == []
    assert len(found.left_out) == 1


def test_the_number_of_queries_does_not_grow_with_the_runs():
    few = _count([started_run()])

    assert _count([started_run() for _ in range(MOST)]) == few <= 8


def _count(runs):
    with CaptureQueriesContext(connection) as captured:
        compared(*runs)
    return len([query for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))])
