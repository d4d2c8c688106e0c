"""What the metrics of many devices say together, against numpy; and which model is better."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.metrics import Headline, headline, measured, score, spread_of, spreads_of

reports = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 10**6)), min_size=1, max_size=30)

all_finite = st.floats(allow_nan=False, allow_infinity=False)


@given(reports)
def test_a_spread_is_the_weighted_mean_and_the_quantiles_of_numpy(told):
    values, weights = zip(*told, strict=True)

    spread = spread_of(values, weights)

    assert spread["mean"] == pytest.approx(np.average(values, weights=weights), rel=1e-9, abs=1e-6)
    assert spread["p10"] == pytest.approx(np.quantile(values, 0.1), rel=1e-9, abs=1e-9)
    assert spread["p90"] == pytest.approx(np.quantile(values, 0.9), rel=1e-9, abs=1e-9)


def test_a_mean_counts_by_examples_and_quantiles_do_not():
    assert spread_of([0.0, 1.0], [1, 3]) == {"mean": 0.75, "p10": pytest.approx(0.1), "p90": pytest.approx(0.9)}


def test_one_device_is_its_own_spread():
    assert spread_of([0.3], [7]) == {"mean": 0.3, "p10": 0.3, "p90": 0.3}


@given(
    st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 2**40)), min_size=1, max_size=9)
)
def test_a_spread_is_finite_or_none_whatever_devices_say(told):
    values, weights = zip(*told, strict=True)

    assert all(value is None or math.isfinite(value) for value in spread_of(values, weights).values())


def test_each_metric_is_spread_over_those_who_told_it():
    spreads = spreads_of([(10, {"loss": 1.0, "accuracy": 0.5}), (30, {"loss": 2.0}), (5, {})])

    assert list(spreads) == ["accuracy", "loss"]
    assert spreads["accuracy"]["mean"] == 0.5
    assert spreads["loss"]["mean"] == 1.75


def test_what_is_not_finite_does_not_count():
    assert spreads_of([(1, {"loss": math.nan}), (1, {"loss": 2.0})])["loss"]["mean"] == 2.0
    assert spreads_of([(1, {"loss": math.inf})]) == {}
    assert spreads_of([]) == {}


def spread(mean):
    return {"mean": mean, "p10": mean, "p90": mean}


SCORES = {
    "accuracy comes before loss": ({"loss": 9.0, "accuracy": 0.5}, {}, 0.5),
    "a smaller loss is better": ({"loss": 2.0}, {}, -2.0),
    "a loss that is nothing says nothing": ({"loss": None}, {}, None),
    "an accuracy that is nothing leaves it to the loss": ({"accuracy": None, "loss": 2.0}, {}, -2.0),
    "the server's word counts before the devices'": ({"accuracy": 0.5}, {"accuracy": spread(0.9)}, 0.5),
    "without the server's word the devices' counts": (None, {"accuracy": spread(0.9)}, 0.9),
    "without a mean nothing is said": (None, {"accuracy": spread(None)}, None),
    "nothing measured": (None, {}, None),
    "other metrics do not decide": ({"f1": 1.0}, {}, None),
}


@pytest.mark.parametrize(("metrics", "device_metrics", "expected"), SCORES.values(), ids=SCORES.keys())
def test_the_score_of_a_model(metrics, device_metrics, expected):
    assert score(metrics, device_metrics) == expected


def test_a_headline_is_the_accuracy_else_the_loss_and_says_where_it_was_measured():
    spread = {"mean": 0.25, "p10": 0.1, "p90": 0.5}

    assert headline({"loss": 1.0, "accuracy": 0.5}, {"accuracy": spread}) == Headline("accuracy", 0.5, on_devices=False)
    assert headline({"loss": 1.0, "accuracy": math.nan}, {}) == Headline("loss", 1.0, on_devices=False)
    assert headline(None, {"loss": spread}) == Headline("loss", 0.25, on_devices=True)
    assert headline({"accuracy": None}, {"accuracy": spread}) is None
    assert headline(None, {}) is None


def test_what_is_not_finite_is_measured_as_nothing():
    assert measured({"loss": math.inf, "accuracy": 0.5}, {}) == {"loss": None, "accuracy": 0.5}
