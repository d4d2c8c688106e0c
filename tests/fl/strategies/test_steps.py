"""Steps before a strategy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.weights import norm
from fl.strategies import STRATEGIES, BadContribution, Contribution, StepChoice, apply_steps
from fl.strategies.mean import weighted_mean
from tests.fl.strategies.builders import contribution

CLIP_TO_5 = [StepChoice("clip_norm", {"max_norm": 5.0})]


def seen_by_the_strategy(one: Contribution) -> torch.Tensor:
    """Return what a strategy makes of this contribution alone."""
    return weighted_mean({"w": torch.zeros(2)}, [one])["w"]


def test_without_steps_contributions_are_what_they_were():
    contributions = [contribution(1, w=[1, 2])]

    assert apply_steps([], contributions) is contributions


def test_a_long_delta_is_shortened_to_the_largest_norm_and_keeps_its_direction():
    (clipped,) = apply_steps(CLIP_TO_5, [contribution(7, w=[30, 40])])

    assert seen_by_the_strategy(clipped).tolist() == pytest.approx([3.0, 4.0])
    assert clipped.num_examples == 7


def test_a_short_delta_stays_as_it_is_bit_by_bit():
    (kept,) = apply_steps(CLIP_TO_5, [contribution(1, w=[3, 4])])

    assert seen_by_the_strategy(kept).tolist() == [3.0, 4.0]


def test_the_norm_is_over_all_tensors_together():
    weights = {"a": torch.zeros(1), "b": torch.zeros(1)}

    clipped = apply_steps(CLIP_TO_5, [contribution(1, a=[30], b=[40])])

    mean = weighted_mean(weights, clipped)
    assert [mean["a"].item(), mean["b"].item()] == pytest.approx([3.0, 4.0])


@given(
    deltas=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2), min_size=1, max_size=6),
    first=st.floats(1e-3, 1e3),
    second=st.floats(1e-3, 1e3),
)
def test_no_device_pulls_harder_than_allowed_and_clipping_twice_is_clipping_to_the_smaller(deltas, first, second):
    contributions = [contribution(1, w=delta) for delta in deltas]

    twice = apply_steps(
        [StepChoice("clip_norm", {"max_norm": first}), StepChoice("clip_norm", {"max_norm": second})], contributions
    )
    once = apply_steps([StepChoice("clip_norm", {"max_norm": min(first, second)})], contributions)

    for one, other in zip(twice, once, strict=True):
        assert norm({"w": seen_by_the_strategy(one)}) <= min(first, second) * (1 + 1e-6)
        torch.testing.assert_close(seen_by_the_strategy(one), seen_by_the_strategy(other), rtol=1e-5, atol=1e-12)


def test_clipped_contributions_go_through_any_strategy():
    weights = {"w": torch.zeros(2)}

    moved, _ = STRATEGIES["fedavg"].apply(
        weights, {}, apply_steps(CLIP_TO_5, [contribution(1, w=[3, 4]), contribution(1, w=[300, 400])]), {}
    )

    assert moved["w"].tolist() == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_delta_without_a_finite_norm_is_refused_with_its_place(value):
    with pytest.raises(BadContribution, match="contribution 1: the norm"):
        apply_steps(CLIP_TO_5, [contribution(1, w=[1, 1]), contribution(1, w=[1, value])])


def test_deltas_are_opened_one_after_another_and_let_go():
    open_now, most = 0, 0

    class Delta(dict):
        def __init__(self):
            nonlocal open_now, most
            super().__init__(w=torch.ones(2))
            open_now += 1
            most = max(most, open_now)

        def __del__(self):
            nonlocal open_now
            open_now -= 1

    apply_steps(CLIP_TO_5, [Contribution(1, Delta)] * 20)

    assert (open_now, most) == (0, 1)
