"""What a run may ask of a strategy, and how it is told what it may not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.strategies import (
    STEPS,
    STRATEGIES,
    ParameterOutOfRange,
    StepChoice,
    UnknownParameter,
    UnknownStep,
    UnknownStrategy,
    check_config,
    check_step,
    find_strategy,
)


def test_the_registry_holds_each_strategy_by_its_name():
    assert list(STRATEGIES) == ["fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert find_strategy(name) is strategy
        assert strategy.description
    for name, step in STEPS.items():
        assert step.name == name


def test_an_unknown_strategy_is_refused_with_those_that_there_are():
    with pytest.raises(UnknownStrategy, match=r"'fedsgd'.*fedavg, fedprox") as refused:
        find_strategy("fedsgd")

    assert refused.value.known == tuple(STRATEGIES)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_what_is_not_said_is_the_default_and_every_default_is_in_range(strategy):
    config = check_config(strategy, {})

    assert config == {name: parameter.default for name, parameter in strategy.parameters.items()}
    assert check_config(strategy, config) == config


def test_the_defaults_are_the_papers_and_flowers():
    assert check_config(STRATEGIES["fedavgm"], {}) == {"eta": 1.0, "beta": 0.9}
    assert check_config(STRATEGIES["fedadagrad"], {}) == {"eta": 0.1, "tau": 1e-3}
    assert check_config(STRATEGIES["fedadam"], {}) == {"eta": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
    assert check_config(STRATEGIES["fedyogi"], {}) == {"eta": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}


def test_an_unknown_parameter_is_refused_with_those_that_there_are():
    with pytest.raises(UnknownParameter, match="fedavgm has no parameter 'momentum'; it has eta, beta"):
        check_config(STRATEGIES["fedavgm"], {"momentum": 0.9})

    with pytest.raises(UnknownParameter, match="it has none"):
        check_config(STRATEGIES["fedavg"], {"mu": 0.1})


@pytest.mark.parametrize("value", [-0.1, 10.5, math.nan, math.inf, 10**400, "0.1", None, True, [1.0], 1j])
def test_a_value_that_is_no_number_in_range_is_refused(value):
    with pytest.raises(ParameterOutOfRange, match=r"fedadam's eta is .* from 0 to 10") as refused:
        check_config(STRATEGIES["fedadam"], {"eta": value})

    assert refused.value.parameter is STRATEGIES["fedadam"].parameters["eta"]


@given(data=st.data(), name=st.sampled_from([name for name in STRATEGIES if STRATEGIES[name].parameters]))
def test_every_value_in_range_is_taken_as_a_float(data, name):
    strategy = STRATEGIES[name]
    asked = {
        key: data.draw(st.floats(parameter.minimum, parameter.maximum))
        for key, parameter in strategy.parameters.items()
    }

    assert check_config(strategy, asked) == asked


def test_whole_numbers_become_floats():
    assert isinstance(check_config(STRATEGIES["fedprox"], {"mu": 1})["mu"], float)


def test_a_step_is_checked_like_a_strategy():
    assert check_step(StepChoice("clip_norm", {"max_norm": 3})) == {"max_norm": 3.0}
    with pytest.raises(UnknownStep, match=r"'noise'.*clip_norm"):
        check_step(StepChoice("noise"))
    with pytest.raises(UnknownParameter, match="clip_norm"):
        check_step(StepChoice("clip_norm", {"norm": 1.0}))
    with pytest.raises(ParameterOutOfRange):
        check_step(StepChoice("clip_norm", {"max_norm": 0}))
