"""FedAvgM: the mean delta gathers momentum on the server."""

from collections.abc import Sequence

import torch

from edge.weights import Weights
from fl.strategies.base import Config, Contribution, Parameter, State, Strategy, gettext_noop
from fl.strategies.mean import accumulator_dtype, add, floating, weighted_mean


def zero_momentum(weights: Weights, config: Config) -> State:
    """m = 0, in the precision that means are summed in."""
    return {name: torch.zeros_like(tensor, dtype=accumulator_dtype(tensor)) for name, tensor in floating(weights)}


def roll(
    weights: Weights, state: State, contributions: Sequence[Contribution], config: Config
) -> tuple[Weights, State]:
    """m ← βm + Δ; x ← x + ηm.

    Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019.
    """
    mean = weighted_mean(weights, contributions)
    momentum = {name: delta.add_(state[name], alpha=config["beta"]) for name, delta in mean.items()}
    return add(weights, momentum, rate=config["eta"]), momentum


FEDAVGM = Strategy(
    name="fedavgm",
    description=gettext_noop("FedAvg with momentum on the server: steadier and faster where the devices' data differ."),
    parameters={
        "eta": Parameter(1.0, 0.0, 10.0, gettext_noop("η: the server's learning rate")),
        "beta": Parameter(
            0.9, 0.0, 0.999, gettext_noop("β: how much of the last rounds' direction is kept; 0 is FedAvg")
        ),
    },
    rule=roll,
    state_rule=zero_momentum,
)
