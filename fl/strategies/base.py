"""What a strategy is: functions from weights, state and contributions to new weights and new state, and their errors.

    StrategyError               a strategy or step cannot do what it was asked
    ├── UnknownStrategy         no strategy has this name
    ├── UnknownStep             no step has this name
    ├── UnknownParameter        the strategy or step has no parameter of this name
    ├── ParameterOutOfRange     a parameter's value is no number, or outside its range
    ├── NoContributions         there is nothing to learn from
    ├── BadContribution         a contribution does not belong to these weights
    ├── BadState                the state is another strategy's, or another model's
    └── NonFiniteResult         NaN or an infinity came out, which is never published

A strategy of one's own, in full:

    def half(weights, state, contributions, config):
        mean = weighted_mean(weights, contributions)
        return add(weights, mean, rate=0.5), {}

    HALF = Strategy(name="half", description="Goes half the way.", parameters={}, rule=half)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from edge.weights import Spec, Weights, first_non_finite, spec_of

State = dict[str, torch.Tensor]
"""What a strategy remembers between rounds, as named tensors, so that it is stored and restored bit by bit."""

Config = Mapping[str, float]


def gettext_noop(text: str) -> str:
    """Mark a text that pages translate; here it stays English, since strategies know no framework."""
    return text


class StrategyError(Exception):
    """A strategy or step cannot do what it was asked."""


class UnknownStrategy(StrategyError):
    """No strategy has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"there is no strategy {name!r}; choose one of {', '.join(known)}")


class UnknownStep(StrategyError):
    """No step has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"there is no step {name!r}; choose from {', '.join(known)}")


class UnknownParameter(StrategyError):
    """The strategy or step has no parameter of this name."""

    def __init__(self, owner: str, name: str, known: Sequence[str]) -> None:
        self.owner = owner
        self.name = name
        self.known = tuple(known)
        super().__init__(f"{owner} has no parameter {name!r}; it has {', '.join(known) or 'none'}")


class ParameterOutOfRange(StrategyError):
    """A parameter's value is no number, or outside its range."""

    def __init__(self, owner: str, name: str, value: object, parameter: "Parameter") -> None:
        self.owner = owner
        self.name = name
        self.value = value
        self.parameter = parameter
        super().__init__(
            f"{owner}'s {name} is {value!r}; it must be a number from {parameter.minimum:g} to {parameter.maximum:g}"
        )


class NoContributions(StrategyError):
    """There is nothing to learn from."""

    def __init__(self) -> None:
        super().__init__("no contributions; a round without any must not be aggregated")


class BadContribution(StrategyError):
    """A contribution does not belong to these weights. `index` counts from 0 in assignment order."""

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        self.reason = reason
        super().__init__(f"contribution {index}: {reason}")


class BadState(StrategyError):
    """The state is another strategy's, or another model's."""

    def __init__(self, strategy: str, name: str) -> None:
        self.strategy = strategy
        self.name = name
        super().__init__(f"the state does not belong to {strategy} and these weights: {name!r} differs or is missing")


class NonFiniteResult(StrategyError):
    """NaN or an infinity came out, which is never published."""

    def __init__(self, strategy: str, name: str) -> None:
        self.strategy = strategy
        self.name = name
        super().__init__(
            f"{strategy} came to a {name!r} with NaN or an infinity; nothing is published (lower the learning rates)"
        )


@dataclass(frozen=True)
class Contribution:
    """An update as a strategy sees it.

    Attributes:
        num_examples: how many examples it was learned from, at least 1.
        open: gives the delta, best as a mapped file; called for a few contributions at a time, so that memory does not
            grow with their number.
        scale: what the delta is to be multiplied by before anything else.
    """

    num_examples: int
    open: Callable[[], Weights]
    scale: float = 1.0


@dataclass(frozen=True)
class Parameter:
    """A number that a strategy or step can be given; both ends of its range are allowed."""

    default: float
    minimum: float
    maximum: float
    help: str


Rule = Callable[[Weights, State, Sequence[Contribution], Config], tuple[Weights, State]]
"""Weights, state, contributions in assignment order, complete config → new weights, new state; changes none of them."""

StateRule = Callable[[Weights, Config], State]
"""Weights, complete config → the state before the first round. Values must not depend on the weights' values."""


def no_state(weights: Weights, config: Config) -> State:
    """Remember nothing between rounds."""
    return {}


@dataclass(frozen=True)
class Strategy:
    """How contributions become the next global model.

    Attributes:
        rule: the mathematics; `apply` guards what goes in and what comes out.
        state_rule: what it remembers before the first round.
    """

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    rule: Rule
    state_rule: StateRule = no_state

    def initial_state(self, weights: Weights, config: Config) -> State:
        """Return the state before the first round.

        Raises:
            UnknownParameter, ParameterOutOfRange: as `check_config`.
        """
        return self.state_rule(weights, check_config(self, config))

    def state_spec(self, spec: Spec, config: Config) -> Spec:
        """Describe the state for weights of this `spec`, without its memory: what `edge.wire` reads it back by."""
        shapes = {
            name: torch.empty(tensor.shape, dtype=tensor.torch_dtype, device="meta") for name, tensor in spec.items()
        }
        return spec_of(self.initial_state(shapes, config))

    def apply(
        self, weights: Weights, state: State, contributions: Sequence[Contribution], config: Config
    ) -> tuple[Weights, State]:
        """Return the next global weights, of the same names, shapes and dtypes, and the next state.

        `contributions` stand in assignment order and are summed in it, so that the result is the same bits whichever
        update arrived first. Arguments are left as they are: a round that is aggregated again comes to the same result.

        Raises:
            NoContributions: `contributions` is empty.
            BadContribution: one has no examples, or its delta is not of these weights.
            BadState: `state` is not this strategy's for these weights.
            NonFiniteResult: weights or state would hold NaN or an infinity.
            UnknownParameter, ParameterOutOfRange: as `check_config`.
        """
        complete = check_config(self, config)
        _check_contributions(contributions)
        self._check_state(weights, state, complete)
        new_weights, new_state = self.rule(weights, state, contributions, complete)
        broken = first_non_finite(new_weights) or first_non_finite(new_state)
        if broken is not None:
            raise NonFiniteResult(self.name, broken)
        return new_weights, new_state

    def _check_state(self, weights: Weights, state: State, config: Config) -> None:
        wanted, found = self.state_spec(spec_of(weights), config), spec_of(state)
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise BadState(self.name, name)


def check_config(strategy: Strategy, config: Mapping[str, object]) -> dict[str, float]:
    """Return all of the strategy's parameters, defaults filled in.

    Raises:
        UnknownParameter: `config` names one that the strategy does not have.
        ParameterOutOfRange: a value is no number, or outside its range.
    """
    return check_parameters(strategy.name, strategy.parameters, config)


def check_parameters(owner: str, parameters: Mapping[str, Parameter], config: Mapping[str, object]) -> dict[str, float]:
    """Return `parameters` with the values of `config`, or their defaults. `owner` is named in errors.

    Raises:
        UnknownParameter: `config` names one that is not in `parameters`.
        ParameterOutOfRange: a value is no number, or outside its range.
    """
    for name in config:
        if name not in parameters:
            raise UnknownParameter(owner, name, list(parameters))
    return {
        name: _in_range(owner, name, config.get(name, parameter.default), parameter)
        for name, parameter in parameters.items()
    }


def _in_range(owner: str, name: str, value: object, parameter: Parameter) -> float:
    # A bool is an int to Python, but nobody means 1.0 by true. NaN fails the comparison, as it must.
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and parameter.minimum <= value <= parameter.maximum
    ):
        return float(value)
    raise ParameterOutOfRange(owner, name, value, parameter)


def _check_contributions(contributions: Sequence[Contribution]) -> None:
    if not contributions:
        raise NoContributions
    for index, contribution in enumerate(contributions):
        if contribution.num_examples < 1:
            raise BadContribution(index, f"num_examples is {contribution.num_examples}; at least 1 is needed")
