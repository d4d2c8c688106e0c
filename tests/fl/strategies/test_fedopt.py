"""FedAvgM and the adaptive strategies against their papers' equations in float64, with restarts between rounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.weights import spec_of, weights_digest
from edge.wire import decode, encode, read_file
from fl.strategies import STRATEGIES
from tests.fl.strategies.builders import contribution, in_files, reference_mean

START = [1.0, -2.0, 0.5, 0.0]
# Three rounds of two devices: steps that repeat, turn round, vanish, and are far larger or smaller than τ.
ROUNDS = [
    [[0.30, -0.20, 1e-4, 0.0], [0.10, 0.40, -3e-4, 0.0]],
    [[-0.25, 0.30, 2e-4, 5.0], [0.05, 0.10, 1e-4, -1.0]],
    [[0.02, -0.60, -5e-5, 0.3], [0.01, -0.20, 4e-4, 0.1]],
]
EXAMPLES = [30, 10]
CONFIGS = {
    "fedavgm": {"eta": 0.7, "beta": 0.8},
    "fedadagrad": {"eta": 0.1, "tau": 0.01},
    "fedadam": {"eta": 0.05, "beta1": 0.8, "beta2": 0.95, "tau": 0.01},
    "fedyogi": {"eta": 0.02, "beta1": 0.9, "beta2": 0.9, "tau": 0.01},
}


def by_the_paper(name, config):
    """Go three rounds in float64, line by line as the papers say it; return x after each."""
    x = np.array(START)
    m = np.zeros(4)
    v = np.full(4, config.get("tau", 0.0) ** 2)
    path = []
    for deltas in ROUNDS:
        d = reference_mean([np.float32(delta) for delta in deltas], EXAMPLES)
        if name == "fedavgm":
            m = config["beta"] * m + d
            x = x + config["eta"] * m
        else:
            beta1, beta2 = config.get("beta1", 0.0), config.get("beta2")
            m = beta1 * m + (1 - beta1) * d
            if name == "fedadagrad":
                v = v + d**2
            elif name == "fedadam":
                v = beta2 * v + (1 - beta2) * d**2
            else:
                v = v - (1 - beta2) * d**2 * np.sign(v - d**2)
            x = x + config["eta"] * m / (np.sqrt(v) + config["tau"])
        path.append(x)
    return path


def round_of(deltas, folder):
    folder.mkdir()
    return in_files(folder, [{"w": torch.tensor(delta)} for delta in deltas], EXAMPLES)


@pytest.mark.parametrize("name", CONFIGS)
def test_three_rounds_with_restarts_between_follow_the_paper(name, tmp_path):
    strategy, config = STRATEGIES[name], CONFIGS[name]
    weights = {"w": torch.tensor(START)}
    state = strategy.initial_state(weights, config)
    spec, state_spec = spec_of(weights), strategy.state_spec(spec_of(weights), config)

    for number, (deltas, expected) in enumerate(zip(ROUNDS, by_the_paper(name, config), strict=True)):
        weights, state = strategy.apply(weights, state, round_of(deltas, tmp_path / f"round-{number}"), config)
        np.testing.assert_allclose(weights["w"], expected, rtol=1e-6, atol=1e-7)
        # The process ends here; what is left of it are two files.
        (tmp_path / f"weights-{number}").write_bytes(encode(weights))
        (tmp_path / f"state-{number}").write_bytes(encode(state))
        weights = read_file(tmp_path / f"weights-{number}", spec)
        state = read_file(tmp_path / f"state-{number}", state_spec)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_restart_changes_no_bit(name, tmp_path):
    strategy, config = STRATEGIES[name], CONFIGS.get(name, {})
    weights = through = {"w": torch.tensor(START)}
    state = stored = strategy.initial_state(weights, config)

    for number, deltas in enumerate(ROUNDS):
        contributions = round_of(deltas, tmp_path / f"round-{number}")
        through, stored = strategy.apply(through, stored, contributions, config)
        weights, state = strategy.apply(weights, state, contributions, config)
        weights = decode(encode(weights), spec_of(weights))
        state = decode(encode(state), strategy.state_spec(spec_of(weights), config))

    assert weights_digest(weights) == weights_digest(through)
    assert weights_digest(state) == weights_digest(stored)


@pytest.mark.parametrize(
    ("name", "config", "m", "v", "x"),
    [
        # One device, x = 1, Δ = 0.3, τ = 0.4: v starts at 0.16.
        ("fedadagrad", {"eta": 0.9, "tau": 0.4}, None, 0.16 + 0.09, 1 + 0.9 * 0.3 / (0.5 + 0.4)),
        (
            "fedadam",
            {"eta": 1.0, "tau": 0.4, "beta1": 0.5, "beta2": 0.9},
            0.15,
            0.9 * 0.16 + 0.1 * 0.09,
            1 + 0.15 / (math.sqrt(0.153) + 0.4),
        ),
        # Δ² is the smaller: v shrinks by (1 − β₂)Δ², however small β₂v is.
        (
            "fedyogi",
            {"eta": 1.0, "tau": 0.4, "beta1": 0.5, "beta2": 0.9},
            0.15,
            0.16 - 0.1 * 0.09,
            1 + 0.15 / (math.sqrt(0.151) + 0.4),
        ),
        ("fedavgm", {"eta": 0.5, "beta": 0.9}, None, None, 1.15),
    ],
)
def test_the_first_step_is_what_one_computes_by_hand(name, config, m, v, x):
    strategy, weights = STRATEGIES[name], {"w": torch.tensor([1.0])}

    moved, state = strategy.apply(weights, strategy.initial_state(weights, config), [contribution(1, w=[0.3])], config)

    assert moved["w"].item() == pytest.approx(x, rel=1e-6)
    if v is not None:
        assert state["v/w"].item() == pytest.approx(v, rel=1e-6)
    if m is not None:
        assert state["m/w"].item() == pytest.approx(m, rel=1e-6)


def test_yogi_grows_where_the_square_is_the_larger():
    config = {"eta": 1.0, "tau": 0.1, "beta1": 0.0, "beta2": 0.9}
    strategy, weights = STRATEGIES["fedyogi"], {"w": torch.tensor([0.0])}

    _, state = strategy.apply(weights, strategy.initial_state(weights, config), [contribution(1, w=[2.0])], config)

    assert state["v/w"].item() == pytest.approx(0.01 + 0.1 * 4.0, rel=1e-6)


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_the_second_moment_starts_at_tau_squared(name):
    state = STRATEGIES[name].initial_state({"w": torch.ones(2, 3), "seen": torch.tensor(1)}, {"tau": 0.25})

    assert torch.equal(state["v/w"], torch.full((2, 3), 0.0625))
    assert not any(key.endswith("seen") for key in state)


@given(
    rounds=st.lists(
        st.lists(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=2), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_fedavgm_without_momentum_is_fedavg_bit_by_bit(rounds):
    momentum, plain = STRATEGIES["fedavgm"], STRATEGIES["fedavg"]
    config = {"beta": 0.0, "eta": 1.0}
    rolled = averaged = {"w": torch.tensor([0.1, -0.7])}
    state = momentum.initial_state(rolled, config)

    for deltas in rounds:
        contributions = [contribution(index + 1, w=delta) for index, delta in enumerate(deltas)]
        rolled, state = momentum.apply(rolled, state, contributions, config)
        averaged, _ = plain.apply(averaged, {}, contributions, {})

    assert torch.equal(rolled["w"], averaged["w"])


@given(delta=st.floats(1e-3, 1e3), name=st.sampled_from(["fedadagrad", "fedadam", "fedyogi"]))
def test_adaptive_strategies_step_towards_the_delta_and_never_further_than_their_bound(delta, name):
    # |m| ≤ |Δ| and v ≥ (1 − β₂)Δ² in the first round, so that a step is at most η/√(1 − β₂).
    strategy, weights = STRATEGIES[name], {"w": torch.zeros(2)}
    config = {"eta": 0.1} | ({} if name == "fedadagrad" else {"beta1": 0.0})

    moved, _ = strategy.apply(
        weights, strategy.initial_state(weights, config), [contribution(1, w=[delta, -delta])], config
    )

    step = moved["w"]
    assert 0 < step[0] <= 0.1 / math.sqrt(0.01) * (1 + 1e-6)
    assert step[1] == -step[0]
