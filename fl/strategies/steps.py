"""Steps before a strategy, for privacy and robustness: from contributions to contributions, in assignment order."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge.weights import norm
from fl.strategies.base import (
    BadContribution,
    Config,
    Contribution,
    Parameter,
    UnknownStep,
    check_parameters,
    gettext_noop,
)

StepRule = Callable[[Sequence[Contribution], Config], Sequence[Contribution]]
"""Contributions in assignment order, complete config → what the next step or the strategy sees."""


@dataclass(frozen=True)
class Step:
    """Something done to contributions before a strategy sees them."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    rule: StepRule


@dataclass(frozen=True)
class StepChoice:
    """A step that a run asks for, with its parameters' values."""

    name: str
    config: Mapping[str, object] = field(default_factory=dict)


def check_step(choice: StepChoice) -> dict[str, float]:
    """Return all of the chosen step's parameters, defaults filled in.

    Raises:
        UnknownStep: no step has this name.
        UnknownParameter, ParameterOutOfRange: as `check_parameters`.
    """
    step = STEPS.get(choice.name)
    if step is None:
        raise UnknownStep(choice.name, list(STEPS))
    return check_parameters(step.name, step.parameters, choice.config)


def apply_steps(choices: Sequence[StepChoice], contributions: Sequence[Contribution]) -> Sequence[Contribution]:
    """Return `contributions` as the strategy shall see them.

    Raises:
        BadContribution: a step cannot work with one of them.
        UnknownStep, UnknownParameter, ParameterOutOfRange: as `check_step`.
    """
    for choice in choices:
        config = check_step(choice)
        contributions = STEPS[choice.name].rule(contributions, config)
    return contributions


def clip_norm(contributions: Sequence[Contribution], config: Config) -> Sequence[Contribution]:
    """Scale each delta down to an L2 norm of at most C over all floating tensors together; shorter ones stay.

    Each delta is opened once here, for its norm, and let go again.

    Raises:
        BadContribution: a delta's norm is not finite, so that nothing can be said of its direction.
    """
    return [
        replace(contribution, scale=contribution.scale * _clip_factor(index, contribution, config["max_norm"]))
        for index, contribution in enumerate(contributions)
    ]


def _clip_factor(index: int, contribution: Contribution, max_norm: float) -> float:
    length = norm(contribution.open()) * abs(contribution.scale)
    if not math.isfinite(length):
        raise BadContribution(index, "the norm of its delta is not finite")
    return max_norm / length if length > max_norm else 1.0


STEPS: dict[str, Step] = {
    "clip_norm": Step(
        name="clip_norm",
        description=gettext_noop(
            "Shortens each update to a largest length, so that no device pulls harder than others."
        ),
        parameters={"max_norm": Parameter(1.0, 1e-6, 1e6, gettext_noop("C: the largest L2 norm that a delta keeps"))},
        rule=clip_norm,
    ),
}
"""Name → step. A new one is a function, a line here and a test."""
