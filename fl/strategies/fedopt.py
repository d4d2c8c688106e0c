"""FedAdagrad, FedAdam and FedYogi: the mean delta as the gradient of an adaptive optimizer on the server.

    m ← β₁m + (1 − β₁)Δ            (FedAdagrad: m = Δ)
    v ← v + Δ²                     FedAdagrad
    v ← β₂v + (1 − β₂)Δ²           FedAdam
    v ← v − (1 − β₂)Δ²·sign(v − Δ²) FedYogi
    x ← x + η m / (√v + τ)

v starts at τ² and there is no correction of bias, as in the paper; Flower differs in both. Δ is the mean by
`num_examples`, as in all strategies here. BatchNorm's running statistics are floating tensors and are stepped like all
others: for models that have them, prefer FedAvg, or GroupNorm.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2.
"""

from collections.abc import Callable, Sequence

import torch

from edge.weights import Weights
from fl.strategies.base import Config, Contribution, Parameter, Rule, State, Strategy, gettext_noop
from fl.strategies.mean import accumulator_dtype, floating, weighted_mean, with_counts

SecondMoment = Callable[[torch.Tensor, torch.Tensor, Config], torch.Tensor]
"""v, Δ, config → the next v, in new memory."""

_FIRST, _SECOND = "m/", "v/"


def both_moments(weights: Weights, config: Config) -> State:
    """m = 0 and v = τ², in the precision that means are summed in."""
    zeros = {
        _FIRST + name: torch.zeros_like(tensor, dtype=accumulator_dtype(tensor)) for name, tensor in floating(weights)
    }
    return zeros | second_moment_alone(weights, config)


def second_moment_alone(weights: Weights, config: Config) -> State:
    """v = τ²."""
    start = config["tau"] ** 2
    return {
        _SECOND + name: torch.full_like(tensor, start, dtype=accumulator_dtype(tensor))
        for name, tensor in floating(weights)
    }


def adagrad(v: torch.Tensor, delta: torch.Tensor, config: Config) -> torch.Tensor:
    return torch.addcmul(v, delta, delta)


def adam(v: torch.Tensor, delta: torch.Tensor, config: Config) -> torch.Tensor:
    return (v * config["beta2"]).addcmul_(delta, delta, value=1 - config["beta2"])


def yogi(v: torch.Tensor, delta: torch.Tensor, config: Config) -> torch.Tensor:
    square = delta * delta
    return torch.addcmul(v, square, torch.sign(v - square), value=config["beta2"] - 1)


def adaptive(second_moment: SecondMoment) -> Rule:
    """Make the rule of an adaptive strategy from the one line in which they differ."""

    def rule(
        weights: Weights, state: State, contributions: Sequence[Contribution], config: Config
    ) -> tuple[Weights, State]:
        new_state, stepped = {}, {}
        for name, delta in weighted_mean(weights, contributions).items():
            v = new_state[_SECOND + name] = second_moment(state[_SECOND + name], delta, config)
            m = delta
            if _FIRST + name in state:
                m = delta.mul_(1 - config["beta1"]).add_(state[_FIRST + name], alpha=config["beta1"])
                new_state[_FIRST + name] = m
            root = v.sqrt().add_(config["tau"])
            # In the root's own memory, which is nobody else's.
            torch.addcdiv(weights[name], m, root, value=config["eta"], out=root)
            stepped[name] = root.to(weights[name].dtype)
        return with_counts(weights, stepped), new_state

    return rule


def _parameters(eta: float, *, decaying: bool) -> dict[str, Parameter]:
    decays = {
        "beta1": Parameter(0.9, 0.0, 0.9999, gettext_noop("β₁: how much of the last rounds' direction is kept")),
        "beta2": Parameter(0.99, 0.0, 0.9999, gettext_noop("β₂: how much of the last rounds' squares is kept")),
    }
    return {
        "eta": Parameter(eta, 0.0, 10.0, gettext_noop("η: the server's learning rate")),
        **(decays if decaying else {}),
        "tau": Parameter(1e-3, 1e-8, 1.0, gettext_noop("τ: how adaptive it is; smaller is more")),
    }


FEDADAGRAD = Strategy(
    name="fedadagrad",
    description=gettext_noop("Adagrad on the server: weights that moved much move less."),
    parameters=_parameters(0.1, decaying=False),
    rule=adaptive(adagrad),
    state_rule=second_moment_alone,
)

FEDADAM = Strategy(
    name="fedadam",
    description=gettext_noop("Adam on the server: momentum, and steps scaled to what each weight did lately."),
    parameters=_parameters(0.1, decaying=True),
    rule=adaptive(adam),
    state_rule=both_moments,
)

FEDYOGI = Strategy(
    name="fedyogi",
    description=gettext_noop("Yogi on the server: FedAdam whose scale grows slowly where updates are sparse."),
    parameters=_parameters(0.01, decaying=True),
    rule=adaptive(yogi),
    state_rule=both_moments,
)
