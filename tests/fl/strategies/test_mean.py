"""The weighted mean: its laws, its precision, and that it streams."""

import os
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.weights import spec_of, weights_digest
from edge.wire import Truncated
from fl.strategies import BadContribution, Contribution
from fl.strategies import mean as mean_module
from fl.strategies.mean import weighted_mean
from tests.fl.strategies.builders import contribution, in_files, reference_mean

NUMBERS = st.floats(-1e3, 1e3, width=32)
DELTAS = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=12)
EXAMPLES = st.integers(1, 10_000)
SMALLEST = 1e-33
"""Below, a share of a value can be less than the least float32 that keeps all its bits."""
ZEROS = {"w": torch.zeros(3)}


def mean_of(*contributions: Contribution) -> torch.Tensor:
    return weighted_mean(ZEROS, contributions)["w"]


def test_a_device_with_three_times_the_examples_counts_three_times():
    once, thrice = contribution(10, w=[4, 0, 8]), contribution(30, w=[0, 4, 8])

    assert mean_of(once, thrice).tolist() == [1.0, 3.0, 8.0]


@given(delta=st.lists(NUMBERS, min_size=3, max_size=3), examples=st.lists(EXAMPLES, min_size=1, max_size=20))
def test_equal_updates_average_to_themselves(delta, examples):
    mean = mean_of(*(contribution(count, w=delta) for count in examples))

    np.testing.assert_allclose(mean, np.float32(delta), rtol=1e-6, atol=SMALLEST)


@given(deltas=DELTAS, data=st.data())
def test_only_the_ratios_of_examples_count(deltas, data):
    examples = data.draw(st.lists(EXAMPLES, min_size=len(deltas), max_size=len(deltas)))
    pairs = list(zip(examples, deltas, strict=True))

    mean = mean_of(*(contribution(count, w=delta) for count, delta in pairs))
    sevenfold = mean_of(*(contribution(7 * count, w=delta) for count, delta in pairs))

    assert torch.equal(mean, sevenfold)


@given(deltas=DELTAS, data=st.data())
def test_another_order_of_assignment_changes_no_more_than_rounding(deltas, data):
    contributions = [contribution(index + 1, w=delta) for index, delta in enumerate(deltas)]
    shuffled = data.draw(st.permutations(contributions))

    largest = np.abs(np.float32(deltas)).max()
    np.testing.assert_allclose(mean_of(*shuffled), mean_of(*contributions), atol=2e-6 * largest + SMALLEST)


def test_the_order_of_arrival_changes_no_bit(tmp_path):
    generator = torch.Generator().manual_seed(1)
    deltas = [{"w": torch.randn(3, generator=generator)} for _ in range(10)]
    (tmp_path / "forth").mkdir()
    (tmp_path / "back").mkdir()

    first_come = in_files(tmp_path / "forth", deltas, list(range(1, 11)))
    # The last comes first; the contributions stand in assignment order all the same.
    last_come = in_files(tmp_path / "back", deltas[::-1], list(range(10, 0, -1)))[::-1]

    assert torch.equal(mean_of(*first_come), mean_of(*last_come))


@pytest.mark.parametrize("devices", [1, 7, 8, 9, 100])
def test_the_mean_is_within_a_millionth_of_a_float64_reference(devices, tmp_path):
    generator = torch.Generator().manual_seed(devices)
    deltas = [{"w": 0.01 * torch.randn(20_000, generator=generator) + 0.003} for _ in range(devices)]
    examples = [int(count) for count in torch.randint(1, 5000, (devices,), generator=generator)]

    mean = weighted_mean({"w": torch.zeros(20_000)}, in_files(tmp_path, deltas, examples))["w"].numpy()

    reference = reference_mean([delta["w"].numpy() for delta in deltas], examples)
    assert np.linalg.norm(mean - reference) <= 1e-6 * np.linalg.norm(reference)
    assert np.abs(mean - reference).max() <= 1e-6 * np.abs(reference).max()


def test_a_number_is_summed_in_float32_in_the_order_given_however_the_tensors_are_cut():
    generator = torch.Generator().manual_seed(2)
    # More than a block of the sum, and not a whole number of them.
    size, examples = 1_300_001, [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    deltas = [torch.randn(size, generator=generator) for _ in examples]

    mean = weighted_mean(
        {"w": torch.zeros(size)},
        [Contribution(count, lambda delta=delta: {"w": delta}) for count, delta in zip(examples, deltas, strict=True)],
    )["w"]

    by_hand = deltas[0] * (examples[0] / sum(examples))
    for delta, count in zip(deltas[1:], examples[1:], strict=True):
        by_hand.add_(delta, alpha=count / sum(examples))
    assert torch.equal(mean, by_hand)


@pytest.mark.parametrize(
    ("dtype", "accumulator"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_summed_in_float32_and_float64_stays(dtype, accumulator):
    delta = {"w": torch.tensor([2048.0, 1.0], dtype=dtype)}
    contributions = [Contribution(1, lambda: delta)] * 3

    mean = weighted_mean({"w": torch.zeros(2, dtype=dtype)}, contributions)["w"]

    assert mean.dtype == accumulator
    np.testing.assert_allclose(mean, [2048.0, 1.0], rtol=1e-6)


def test_counts_and_masks_have_no_mean():
    weights = {"w": torch.zeros(1), "seen": torch.tensor(5), "mask": torch.tensor([True])}
    delta = {"w": torch.ones(1), "seen": torch.tensor(9), "mask": torch.tensor([False])}

    assert weighted_mean(weights, [Contribution(1, lambda: delta)]).keys() == {"w"}


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"v": torch.zeros(3)},
        {"w": torch.zeros(1)},
        {"w": torch.zeros(3, 1)},
        {"w": torch.zeros(3, dtype=torch.float64)},
        {"w": torch.zeros(3, dtype=torch.int32)},
    ],
    ids=["nothing", "another name", "one that would stretch", "another shape", "another dtype", "integers"],
)
def test_a_delta_of_another_model_is_refused_with_its_place(delta):
    with pytest.raises(BadContribution, match="contribution 1") as refused:
        mean_of(contribution(1, w=[1, 2, 3]), Contribution(1, lambda: delta))

    assert refused.value.index == 1


def test_deltas_are_let_go_as_they_are_added():
    weights = {"a": torch.zeros(1000), "b": torch.zeros(1000)}
    alive: list[weakref.ref] = []
    most = 0

    def open_one():
        nonlocal most
        delta = {name: torch.ones(1000) for name in weights}
        alive.extend(weakref.ref(tensor) for tensor in delta.values())
        most = max(most, sum(tensor() is not None for tensor in alive))
        return delta

    weighted_mean(weights, [Contribution(1, open_one)] * 200)

    # Two tensors in each of the few deltas that are open at once.
    assert len(alive) == 400
    assert most <= 2 * 32
    assert not any(tensor() is not None for tensor in alive)


def test_of_large_deltas_fewer_are_open_at_once_so_that_it_is_soon_known_when_to_stop(monkeypatch):
    monkeypatch.setattr(mean_module, "_MOST_BYTES", 50 * 1024**2)
    shared = torch.zeros(5 * 1024**2)  # 20 MiB
    alive: list[weakref.ref] = []
    most = 0

    def open_one():
        nonlocal most
        delta = {"w": shared[:]}
        alive.append(weakref.ref(delta["w"]))
        most = max(most, sum(tensor() is not None for tensor in alive))
        return delta

    weighted_mean({"w": shared}, [Contribution(1, open_one)] * 6)

    assert most == 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit_of_the_mean_and_torch_keeps_its_own(threads, tmp_path):
    generator = torch.Generator().manual_seed(3)
    # More than a block, not a whole number of them, and what is small or empty.
    shapes = {"large": (1_000_003,), "matrix": (700, 300), "scalar": (), "none": (0,)}
    deltas = [{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(40)]
    examples = list(range(1, 41))
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mean = weighted_mean(weights, in_files(tmp_path, deltas, examples))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    by_hand = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for delta, count in zip(deltas, examples, strict=True):
        for name, tensor in by_hand.items():
            tensor.add_(delta[name], alpha=count / sum(examples))
    assert weights_digest(mean) == weights_digest(by_hand)


def test_a_file_that_has_shrunk_since_it_was_opened_is_no_contribution(tmp_path):
    deltas = [{"w": torch.ones(700_000)} for _ in range(2)]
    contributions = in_files(tmp_path, deltas, [1, 1])
    opened = contributions[1].open()
    os.truncate(tmp_path / "update-1", 1_000_000)

    with pytest.raises(Truncated, match="'w'"):
        weighted_mean({"w": torch.zeros(700_000)}, [contributions[0], Contribution(1, lambda: opened)])


def test_what_was_opened_is_left_as_it_was(tmp_path):
    delta = {"w": torch.tensor([1.0, 2.0, 3.0])}
    contributions = [Contribution(1, lambda: delta), *in_files(tmp_path, [delta], [2])]

    mean_of(*contributions)

    assert weights_digest(delta) == weights_digest({"w": torch.tensor([1.0, 2.0, 3.0])})
    assert weights_digest(contributions[1].open()) == weights_digest(delta)
    assert spec_of(ZEROS) == spec_of(delta)


def test_a_scaled_contribution_counts_as_if_its_delta_were_scaled():
    scaled = Contribution(1, contribution(1, w=[4, 8, 12]).open, scale=0.25)

    assert mean_of(scaled, contribution(1, w=[1, 2, 3])).tolist() == [1.0, 2.0, 3.0]
