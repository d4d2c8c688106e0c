"""How contributions become the next global model: mathematics on tensors, which knows neither database nor framework.

A new strategy is a module, a line in `STRATEGIES` and a test; `base` shows one in full.
"""

from collections.abc import Mapping

from fl.strategies.base import (
    BadContribution,
    BadState,
    Contribution,
    NoContributions,
    NonFiniteResult,
    Parameter,
    ParameterOutOfRange,
    State,
    Strategy,
    StrategyError,
    UnknownParameter,
    UnknownStep,
    UnknownStrategy,
    check_config,
)
from fl.strategies.fedavg import FEDAVG
from fl.strategies.fedavgm import FEDAVGM
from fl.strategies.fedopt import FEDADAGRAD, FEDADAM, FEDYOGI
from fl.strategies.fedprox import FEDPROX
from fl.strategies.steps import STEPS, Step, StepChoice, apply_steps, check_step

__all__ = [
    "STEPS",
    "STRATEGIES",
    "BadContribution",
    "BadState",
    "Contribution",
    "NoContributions",
    "NonFiniteResult",
    "Parameter",
    "ParameterOutOfRange",
    "State",
    "Step",
    "StepChoice",
    "Strategy",
    "StrategyError",
    "UnknownParameter",
    "UnknownStep",
    "UnknownStrategy",
    "apply_steps",
    "check_config",
    "check_step",
    "find_strategy",
    "proximal_mu",
    "required_support",
]

STRATEGIES: dict[str, Strategy] = {
    "fedavg": FEDAVG,
    "fedprox": FEDPROX,
    "fedavgm": FEDAVGM,
    "fedadagrad": FEDADAGRAD,
    "fedadam": FEDADAM,
    "fedyogi": FEDYOGI,
}
"""Name → strategy."""


def find_strategy(name: str) -> Strategy:
    """Return the strategy of this name.

    Raises:
        UnknownStrategy: there is none; the error lists those that there are.
    """
    strategy = STRATEGIES.get(name)
    if strategy is None:
        raise UnknownStrategy(name, list(STRATEGIES))
    return strategy


def proximal_mu(strategy_name: str, config: Mapping[str, object]) -> float:
    """Return the μ that devices train with: FedProx's, and 0 for all others.

    Raises:
        UnknownStrategy: there is none of this name.
        UnknownParameter, ParameterOutOfRange: as `check_config`.
    """
    complete = check_config(find_strategy(strategy_name), config)
    return complete["mu"] if strategy_name == FEDPROX.name else 0.0


def required_support(strategy_name: str, config: Mapping[str, object]) -> frozenset[str]:
    """Return what a task's training loop must support for this strategy, in the words of `Task.supports`.

    Raises:
        as `proximal_mu`.
    """
    return frozenset({"proximal"}) if proximal_mu(strategy_name, config) > 0 else frozenset()
