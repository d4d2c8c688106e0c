"""How many devices could be selected for a run that is being thought of."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fl.coordination import eligible_devices
from fl.models import Run
from fl.snapshots import consistent_read
from fl.tasks import digest_of_task


@dataclass(frozen=True)
class Qualifying:
    """Devices that offer the task, are online, and can do what the strategy needs.

    Attributes:
        qualified: could be selected at once.
        at_work: have enough examples, and are busy with an assignment now.
        too_few_examples: have fewer than are asked for.
    """

    qualified: int
    at_work: int
    too_few_examples: int


def qualifying(
    *, task: str, min_examples: int, strategy: str, strategy_config: Mapping[str, float], now: datetime
) -> Qualifying:
    """Count who qualifies for a run of this task now.

    Raises:
        TaskUnavailable: the server does not have the task.
        StrategyError: there is no such strategy, or a parameter of it cannot be.
    """
    # A run that is not saved: what would be selected for it is what qualifies.
    run = Run(
        task=task,
        task_digest=digest_of_task(task),
        strategy=strategy,
        strategy_config=dict(strategy_config),
        min_examples=min_examples,
    )
    with consistent_read():
        idle = len(eligible_devices(run, now))
        enough = len(eligible_devices(run, now, even_at_work=True))
        run.min_examples = 0
        any_number = len(eligible_devices(run, now, even_at_work=True))
    return Qualifying(qualified=idle, at_work=enough - idle, too_few_examples=any_number - enough)


def outlook(qualified: int, quorum: int, cohort_size: int) -> str:
    """Say what so many devices mean for a round: it is `whole`, `smaller` (after its patience), or would `wait`."""
    if qualified >= cohort_size:
        return "whole"
    return "smaller" if qualified >= quorum else "wait"
