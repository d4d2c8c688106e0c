"""FedAvg and FedProx: the mean step, and what a strategy guards on the way in and out."""

import pytest
import torch

from edge.weights import spec_of, weights_digest
from fl.strategies import (
    STRATEGIES,
    BadContribution,
    BadState,
    Contribution,
    NoContributions,
    NonFiniteResult,
    proximal_mu,
    required_support,
)
from tests.fl.strategies.builders import contribution

ALL = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def test_the_next_weights_are_the_last_plus_the_mean_delta():
    weights = {"w": torch.tensor([10.0, 20.0])}

    moved, state = STRATEGIES["fedavg"].apply(weights, {}, [contribution(1, w=[1, 0]), contribution(3, w=[5, 4])], {})

    assert moved["w"].tolist() == [14.0, 23.0]
    assert state == {}


def test_the_first_example_of_the_paper_is_a_mean_of_models():
    # Averaging deltas is averaging the devices' models, by their examples.
    start = torch.tensor([0.5])
    models, examples = [torch.tensor([1.0]), torch.tensor([3.0])], [1, 1]
    contributions = [contribution(n, w=(model - start).tolist()) for n, model in zip(examples, models, strict=True)]

    moved, _ = STRATEGIES["fedavg"].apply({"w": start}, {}, contributions, {})

    assert moved["w"].tolist() == [2.0]


def test_fedprox_on_the_server_is_fedavg_bit_by_bit_whatever_mu():
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(50, generator=generator)}
    contributions = [contribution(n, w=torch.randn(50, generator=generator).tolist()) for n in (3, 1, 8)]

    averaged, _ = STRATEGIES["fedavg"].apply(weights, {}, contributions, {})

    for mu in (0.0, 0.01, 1.0):
        moved, state = STRATEGIES["fedprox"].apply(weights, {}, contributions, {"mu": mu})
        assert weights_digest(moved) == weights_digest(averaged)
        assert state == {}


def test_mu_goes_to_devices_under_fedprox_alone():
    assert proximal_mu("fedprox", {"mu": 0.3}) == 0.3
    assert proximal_mu("fedprox", {}) == STRATEGIES["fedprox"].parameters["mu"].default > 0
    assert proximal_mu("fedavg", {}) == 0.0
    assert proximal_mu("fedadam", {"eta": 0.5}) == 0.0


def test_a_task_must_support_the_proximal_term_only_where_there_is_one():
    assert required_support("fedprox", {"mu": 0.3}) == {"proximal"}
    assert required_support("fedprox", {"mu": 0.0}) == frozenset()
    assert required_support("fedyogi", {}) == frozenset()


@ALL
def test_integers_and_masks_keep_the_servers_value(strategy):
    weights = {"w": torch.zeros(2), "seen": torch.tensor(5), "mask": torch.tensor([True, False])}
    delta = {"w": torch.ones(2), "seen": torch.tensor(90), "mask": torch.tensor([True, True])}
    state = strategy.initial_state(weights, {})

    moved, _ = strategy.apply(weights, state, [Contribution(4, lambda: delta)], {})

    assert moved["seen"].item() == 5
    assert moved["mask"].tolist() == [True, False]
    assert moved["w"].gt(0).all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_next_weights_have_the_names_shapes_and_dtypes_of_the_last(strategy, dtype):
    weights = {"scalar": torch.tensor(1.0, dtype=dtype), "matrix": torch.ones(2, 3, dtype=dtype), "n": torch.tensor(1)}
    delta = {name: torch.ones_like(tensor) for name, tensor in weights.items()}
    state = strategy.initial_state(weights, {})

    moved, new_state = strategy.apply(weights, state, [Contribution(1, lambda: delta)] * 2, {})

    assert spec_of(moved) == spec_of(weights)
    assert spec_of(new_state) == spec_of(state) == strategy.state_spec(spec_of(weights), {})


@ALL
def test_arguments_are_left_as_they_were_so_that_a_round_can_be_aggregated_again(strategy):
    weights = {"w": torch.tensor([1.0, 2.0]), "seen": torch.tensor(3)}
    delta = {"w": torch.tensor([0.5, -0.5]), "seen": torch.tensor(1)}
    contributions = [Contribution(2, lambda: delta)]
    state = strategy.initial_state(weights, {})
    before = [weights_digest(tensors) for tensors in (weights, state, delta)]

    first = strategy.apply(weights, state, contributions, {})
    for tensor in (*first[0].values(), *first[1].values()):
        tensor.fill_(0)
    again = strategy.apply(weights, state, contributions, {})

    assert [weights_digest(tensors) for tensors in (weights, state, delta)] == before
    assert again[0]["w"].ne(0).all()


@ALL
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_result_that_is_not_finite_is_never_returned(strategy, value):
    weights = {"good": torch.zeros(1), "w": torch.zeros(2)}
    state = strategy.initial_state(weights, {})

    with pytest.raises(NonFiniteResult) as refused:
        strategy.apply(weights, state, [contribution(1, good=[1], w=[1, value])], {})

    assert refused.value.strategy == strategy.name
    assert refused.value.name.endswith("w")


def test_a_sum_that_overflows_is_never_returned():
    with pytest.raises(NonFiniteResult):
        STRATEGIES["fedavg"].apply({"w": torch.tensor([3e38])}, {}, [contribution(1, w=[3e38])], {})


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_a_state_that_overflows_is_never_returned_even_where_the_weights_look_well(name):
    strategy, weights = STRATEGIES[name], {"w": torch.zeros(1)}

    with pytest.raises(NonFiniteResult, match="v/w"):
        strategy.apply(weights, strategy.initial_state(weights, {}), [contribution(1, w=[1e25])], {})


@ALL
def test_a_round_without_contributions_is_refused(strategy):
    weights = {"w": torch.zeros(1)}

    with pytest.raises(NoContributions):
        strategy.apply(weights, strategy.initial_state(weights, {}), [], {})


@pytest.mark.parametrize("num_examples", [0, -3])
def test_a_contribution_without_examples_is_refused_before_any_is_opened(num_examples):
    opened = []

    with pytest.raises(BadContribution, match="contribution 1: num_examples"):
        STRATEGIES["fedavg"].apply(
            {"w": torch.zeros(1)},
            {},
            [Contribution(1, lambda: opened.append(1)), contribution(num_examples, w=[1])],
            {},
        )

    assert opened == []


@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        ("fedavg", {"w": torch.zeros(1)}),
        ("fedavgm", {}),
        ("fedavgm", {"w": torch.zeros(2)}),
        ("fedadam", {"w": torch.zeros(1)}),
        ("fedadam", {"m/w": torch.zeros(1), "v/w": torch.zeros(1, dtype=torch.float64)}),
        ("fedadagrad", {"m/w": torch.zeros(1), "v/w": torch.zeros(1)}),
    ],
)
def test_a_state_of_another_strategy_or_model_is_refused(strategy, state):
    with pytest.raises(BadState):
        STRATEGIES[strategy].apply({"w": torch.zeros(1)}, state, [contribution(1, w=[1])], {})
