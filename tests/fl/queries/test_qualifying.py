"""Who qualifies for a run that is being thought of is who would be selected for it."""

import pytest

from fl.coordination import eligible_devices
from fl.exceptions import TaskUnavailable
from fl.queries.qualifying import Qualifying, outlook, qualifying
from fl.strategies import StrategyError
from tests.builders import NOW, fleet, participant, started_run, step

pytestmark = pytest.mark.django_db


def count(**changes):
    asked = {"task": "linear", "min_examples": 1, "strategy": "fedavg", "strategy_config": {}, **changes}
    return qualifying(**asked, now=NOW)


def test_devices_that_are_idle_and_have_enough_examples_qualify():
    fleet(2)
    participant().connect(num_examples=9)
    participant(task="digits").connect()
    participant()

    assert count() == Qualifying(qualified=3, at_work=0, too_few_examples=0)
    assert count(min_examples=10) == Qualifying(qualified=2, at_work=0, too_few_examples=1)


def test_devices_at_work_are_told_apart():
    fleet(3)
    run = started_run(cohort_size=2)
    step(run)

    found = count()

    assert found == Qualifying(qualified=1, at_work=2, too_few_examples=0)
    assert found.qualified == len(eligible_devices(run, NOW))


def test_what_is_unknown_is_refused():
    with pytest.raises(TaskUnavailable):
        count(task="alchemy")
    with pytest.raises(StrategyError):
        count(strategy="alchemy")


@pytest.mark.parametrize(
    ("qualified", "expected"), [(0, "wait"), (1, "wait"), (2, "smaller"), (3, "whole"), (9, "whole")]
)
def test_the_outlook_of_a_round_follows_quorum_and_cohort(qualified, expected):
    assert outlook(qualified, 2, 3) == expected
