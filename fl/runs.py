"""Use cases of runs: create, describe, start, pause, resume, extend a round's deadline, stop."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from edge.tasks import missing_support
from fl import audit, events
from fl.audit import Subject
from fl.exceptions import Conflict, Invalid, InvalidRun, WrongMove
from fl.lifecycle import RoundState, RunState
from fl.models import Run
from fl.models.audit import Act
from fl.rounds import end_round, extend_deadline, lock_run, move_run, open_round_of, settle_run, tell_run
from fl.strategies import StepChoice, StrategyError, check_config, check_step, find_strategy, required_support
from fl.tags import checked_tags
from fl.tasks import digest_of_task, task_named

LONGEST_SECONDS = 86_400 * 366.0
"""For how long a round waits or trains at most: a year. Far beyond, no calendar has the end of it."""
MAX_EXTENSION_SECONDS = 86_400
"""By how much a deadline is extended at once: a day. It may be extended again."""


@dataclass(frozen=True)
class RunPlan:
    """What a run is to be; fields are those of `Run`, with the defaults of its task and strategy where None."""

    name: str
    task: str
    strategy: str = "fedavg"
    rounds: int = 20
    cohort_size: int = 2
    quorum: int | None = None
    seed: int = 0
    strategy_config: dict[str, float] = field(default_factory=dict)
    steps: Sequence[dict[str, Any]] = ()
    local_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    cohort_wait_seconds: float = 30.0
    deadline_seconds: float = 600.0
    min_examples: int = 1
    max_update_norm: float | None = None
    public: bool = False
    keep_updates: bool = False
    tags: Sequence[str] = ()
    notes: str = ""


def create_run(*, plan: RunPlan, created_by: User | None, now: datetime) -> Run:
    """Make a run that waits to be started; everything that could never work is refused here.

    Raises:
        TaskUnavailable: the server does not have the task.
        InvalidRun: a value cannot be, or the task cannot do what the strategy needs.
    """
    task = task_named(plan.task)
    values = asdict(plan)
    for name in ("local_epochs", "batch_size", "learning_rate", "momentum"):
        if values[name] is None:
            values[name] = getattr(task.defaults, name)
    values["quorum"] = plan.cohort_size if plan.quorum is None else plan.quorum
    values["steps"] = list(plan.steps)
    values["tags"] = checked_tags(plan.tags)
    _check_numbers(values)
    values["strategy_config"] = _checked_strategy(plan)
    if lacking := missing_support(task, required_support(plan.strategy, plan.strategy_config)):
        raise InvalidRun(
            f"the task {plan.task} cannot do what {plan.strategy} needs: {', '.join(sorted(lacking))}",
            field="strategy",
            action="choose another strategy, or declare the support in the task's training loop",
        )
    run = Run(task_digest=digest_of_task(plan.task), created_by=created_by, created_at=now, **values)
    with _told_by_field():
        run.full_clean(exclude=["created_by"])
    with events.transaction():
        run.save()
        events.open_stream(run.stream, task=run.task, public=run.public)
        planned = f"{run.task}, {run.strategy}, rounds: {run.rounds}, devices in a round: {run.cohort_size}"
        audit.note(Act.RUN_CREATE, Subject.of(run), by=created_by, now=now, detail=planned)
        tell_run(run, now)
    return run


def describe_run(
    *,
    run: Run,
    now: datetime,
    by: User | None = None,
    name: str | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
) -> Run:
    """Change how a run is called, tagged and noted, whatever its state; what is None stays. A new name is told.

    Raises:
        InvalidRun: the name is empty or too long, or the notes are too long.
        Invalid: a tag cannot be (see `fl.tags`).
        NotFound: there is no such run.
    """
    with events.transaction():
        locked = lock_run(run.pk)
        before = locked.name
        locked.name = before if name is None else name.strip()
        locked.tags = locked.tags if tags is None else checked_tags(tags)
        locked.notes = locked.notes if notes is None else notes.strip()
        with _told_by_field():
            locked.clean_fields(exclude={field.name for field in Run._meta.fields} - {"name", "tags", "notes"})
        locked.save(update_fields=["name", "tags", "notes"])
        audit.note(Act.RUN_DESCRIBE, Subject.of(locked), by=by, now=now, detail=f"before: {before}")
        if locked.name != before:
            tell_run(locked, now)
    return locked


@contextmanager
def _told_by_field() -> Iterator[None]:
    """Tell the first of Django's own complaints as ours."""
    try:
        yield
    except ValidationError as error:
        field_name, messages = next(iter(error.message_dict.items()))
        raise InvalidRun(f"{field_name}: {messages[0]}", field=field_name) from error


def _check_numbers(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRun(f"{name} must be a finite number", field=name)
    for name in ("cohort_wait_seconds", "deadline_seconds"):
        if values[name] > LONGEST_SECONDS:
            raise InvalidRun(f"{name} must be at most {LONGEST_SECONDS:.0f} s, a year", field=name)
    if values["quorum"] > values["cohort_size"]:
        raise InvalidRun(
            f"a quorum of {values['quorum']} can never be met by a cohort of {values['cohort_size']}",
            field="quorum",
            action="lower the quorum or raise cohort_size",
        )
    if not values["learning_rate"] > 0:
        raise InvalidRun("learning_rate must be above 0", field="learning_rate")
    if not 0 <= values["momentum"] < 1:
        raise InvalidRun("momentum must be in [0, 1)", field="momentum")
    for name in ("rounds", "cohort_size", "quorum", "local_epochs", "batch_size"):
        if values[name] < 1:
            raise InvalidRun(f"{name} must be at least 1", field=name)


def _checked_strategy(plan: RunPlan) -> dict[str, float]:
    try:
        for step in plan.steps:
            check_step(StepChoice(step.get("name", ""), step.get("config", {})))
        return dict(check_config(find_strategy(plan.strategy), plan.strategy_config))
    except StrategyError as error:
        raise InvalidRun(str(error), field="strategy") from error


def start_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Let a pending run begin; a coordinator makes its initial model and opens its first round.

    Raises:
        WrongMove: it is not pending.
    """
    return _move(run, RunState.PENDING, RunState.RUNNING, Act.RUN_START, by, now)


def pause_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Pause a running run at once: its open round finishes, none opens.

    Raises:
        WrongMove: it is not running.
    """
    reason = f"paused by {by.get_username()}" if by else ""
    return _move(run, RunState.RUNNING, RunState.PAUSED, Act.RUN_PAUSE, by, now, reason=reason)


def resume_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Let a paused run go on: with its open round, or the next.

    Raises:
        WrongMove: it is not paused.
    """
    return _move(run, RunState.PAUSED, RunState.RUNNING, Act.RUN_RESUME, by, now)


def _move(
    run: Run, origin: RunState, state: RunState, act: Act, by: User | None, now: datetime, *, reason: str = ""
) -> Run:
    with events.transaction():
        locked = lock_run(run.pk)
        if locked.state != origin:
            raise WrongMove(f"run {run.label}", current=locked.state, wanted=state)
        audit.note(act, Subject.of(locked), by=by, now=now)
        move_run(locked, state, now=now, reason=reason)
        settle_run(locked, now=now)
        events.wake_coordinators()
    return locked


def extend_round(*, run: Run, seconds: float, now: datetime, by: User | None = None) -> Run:
    """Extend the deadline of the round that is training, so that it still takes the updates of slow devices.

    Its devices are not told: they train until they are told to stop, and the deadline is the coordinator's to see.

    Raises:
        Invalid: it is no time, or more than `MAX_EXTENSION_SECONDS`.
        Conflict: no round of the run is training.
    """
    if not 0 < seconds <= MAX_EXTENSION_SECONDS:
        raise Invalid(
            f"a deadline is extended by more than 0 s and at most {MAX_EXTENSION_SECONDS} s, not by {seconds:g} s",
            field="seconds",
            action="where a day is not enough, extend it again",
        )
    with events.transaction():
        locked = lock_run(run.pk)
        current = open_round_of(locked)
        if current is None or current.state != RoundState.TRAINING:
            raise Conflict(
                f"no round of run {run.label} is training",
                action="a deadline is extended while the devices of a round train",
            )
        detail = f"round {current.number}, by {seconds:g} s"
        audit.note(Act.RUN_EXTEND_DEADLINE, Subject.of(locked), by=by, now=now, detail=detail)
        extend_deadline(current, seconds, reason=f"by {by.get_username()}" if by else "", now=now)
        tell_run(locked, now)
        events.wake_coordinators()
    return locked


def stop_run(*, run: Run, now: datetime, by: User | None = None, after_round: bool = False) -> Run:
    """Stop a run: after the round that is training, or now, which cancels what devices are doing.

    Raises:
        WrongMove: it has ended.
    """
    with events.transaction():
        locked = lock_run(run.pk)
        if locked.ended_at is not None:
            raise WrongMove(f"run {run.label}", current=locked.state, wanted=RunState.STOPPED)
        current = open_round_of(locked)
        who = f" by {by.get_username()}" if by else ""
        waits = after_round and current is not None and current.state != RoundState.PENDING
        when = "after this round" if waits else "now"
        audit.note(Act.RUN_STOP, Subject.of(locked), by=by, now=now, detail=when)
        if waits:
            Run.objects.filter(pk=locked.pk).update(stop_after_round=True, reason=f"stopping after this round{who}")
            locked.refresh_from_db()
            tell_run(locked, now)
            return locked
        if current is not None:
            end_round(current, RoundState.STOPPED, reason=f"the run was stopped{who}", now=now)
        move_run(locked, RunState.STOPPED, now=now, reason=f"stopped{who}")
        events.wake_coordinators()
    return locked
