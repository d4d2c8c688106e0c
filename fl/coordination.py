"""The one idempotent driver: looks at a run or round, asks `lifecycle` what comes next, and does that, once.

Whoever notices something calls `advance_run` and `advance`. A conditional UPDATE is the lock: who changes no row was
not first and leaves. Aggregating and evaluating hold a claim, a token with a time; what they make is published only by
an UPDATE that still finds the token, so a coordinator that was away too long publishes nothing.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, IntegrityError, connection
from django.db.models import Q
from django.utils import timezone

from edge.protocol import PROTOCOL
from edge.protocol.server import ModelAggregation
from fl import aggregation, events
from fl.cohorts import select_cohort
from fl.exceptions import LostRace
from fl.lifecycle import (
    OPEN_ASSIGNMENTS,
    Aggregate,
    AssignmentState,
    Evaluate,
    Fail,
    Over,
    RoundFacts,
    RoundState,
    RunFacts,
    RunState,
    Select,
    Wait,
    next_step,
)
from fl.metrics import score, spreads_of
from fl.models import Assignment, Device, GlobalModel, Round, Run, Update
from fl.models.update import UpdateState
from fl.outages import is_outage
from fl.payloads import (
    assignment_message,
    assignment_progress,
    model_completed,
    model_completed_from,
    round_completed,
)
from fl.prepared import Prepared
from fl.rounds import (
    close_assignments,
    end_round,
    forget_files,
    lock_again,
    lock_run,
    move_run,
    open_next,
    settle_run,
    states_in,
    tell_round,
    tell_run,
)
from fl.seeds import cohort_seed
from fl.strategies import required_support

logger = logging.getLogger(__name__)


Clock = Callable[[], datetime]


@dataclass(frozen=True)
class SteadyClock:
    """What the system's clock said, and the process's own as it said so: from both follows what it says later.

    Attributes:
        said: aware.
        ticks: in s.
    """

    said: datetime = field(default_factory=timezone.now)
    ticks: float = field(default_factory=time.monotonic)

    def __call__(self) -> datetime:
        return self.said + timedelta(seconds=time.monotonic() - self.ticks)


@dataclass(frozen=True)
class _Claim:
    """A round that this coordinator works on.

    Attributes:
        states: of its assignments, which take no more updates.
    """

    round: Round
    token: str
    states: Sequence[str]
    clock: Clock

    def now(self) -> datetime:
        """Return what the caller's clock says by now."""
        return self.clock()


_rounds = Prepared(lambda round_id: Round.objects.select_related("run__best_model", "base_model").filter(pk=round_id))


def advance_run(run_id: int, clock: Clock, is_stopping: Callable[[], bool] = aggregation.never) -> bool:
    """Give a running run its initial model or its next round where it lacks one; say whether anything was done.

    Args:
        is_stopping: is asked between the batches of an evaluation, which is given up when the process is to end.
    """
    run = Run.objects.get(pk=run_id)
    if run.state != RunState.RUNNING or run.round_set.filter(ended_at__isnull=True).exists():
        return False
    if not run.models.exists():
        return _initialise(run, clock, is_stopping)
    with events.transaction():
        locked = lock_run(run_id)
        settle_run(locked, now=clock())
    return True


def advance(round_id: int, clock: Clock, is_stopping: Callable[[], bool] = aggregation.never) -> bool:
    """Do the one thing that a round's facts call for by now; say whether anything was done.

    Calling it again, or in two processes at once, does no harm.

    Args:
        is_stopping: is asked between the updates of an aggregation and the batches of an evaluation, which are given
            up when the process is to end.
    """
    now = clock()
    round_ = _rounds.first(round_id=round_id)
    if round_ is None:
        raise Round.DoesNotExist(f"there is no round {round_id}")
    states = states_in(round_)
    step = next_step(_facts(round_, states, _eligible_for(round_, now)), now)
    try:
        match step:
            case Over():
                return False
            case Wait(reason):
                return _say_what_it_waits_for(round_, reason, now)
            case Select():
                return _select(round_, clock)
            case Fail():
                return _fail(round_, now)
            case Aggregate():
                return _aggregate(round_, states, clock, is_stopping)
            case Evaluate():
                return _evaluate(round_, states, clock, is_stopping)
    except LostRace as race:
        logger.info("round %s of run %s: %s", round_.number, round_.run_id, race)
        return False


# ── facts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def facts_of(round_: Round, now: datetime) -> RoundFacts:
    """Read what one needs to know of a round."""
    return _facts(round_, states_in(round_), _eligible_for(round_, now))


def _eligible_for(round_: Round, now: datetime) -> Sequence[Device]:
    return eligible_devices(round_.run, now) if round_.state == RoundState.PENDING else []


def _facts(round_: Round, states: Sequence[str], eligible: Sequence[Device]) -> RoundFacts:
    run = round_.run
    return RoundFacts(
        state=RoundState(round_.state),
        run_state=RunState(run.state),
        opened_at=round_.opened_at,
        cohort_size=run.cohort_size,
        quorum=run.quorum,
        cohort_wait_seconds=run.cohort_wait_seconds,
        eligible=len(eligible),
        open_assignments=sum(state in OPEN_ASSIGNMENTS for state in states),
        accepted=states.count(AssignmentState.ACCEPTED),
        deadline_at=round_.deadline_at,
        claimed_until=round_.claimed_until,
    )


def eligible_devices(run: Run, now: datetime, *, even_at_work: bool = False) -> list[Device]:
    """Return the devices that could be selected for this run now, with their names and no more, in rising order of id.

    Active, online, idle, with the same task digest and protocol as the server, enough examples, and a training loop
    that can do what the strategy needs.

    Args:
        even_at_work: also those that are busy with an assignment now.
    """
    needs = required_support(run.strategy, run.strategy_config)
    offers = (
        Device.objects.filter(
            state="active",
            protocol=PROTOCOL,
            lease__closed_at__isnull=True,
            lease__lease_until__gt=now,
            tasks__task=run.task,
            tasks__digest=run.task_digest,
            tasks__num_examples__gte=run.min_examples,
        )
        .order_by("pk")
        .values_list("pk", "name", "tasks__supports")
    )
    if not even_at_work:
        offers = offers.exclude(
            pk__in=Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).order_by().values("device")
        )
    return [Device(pk=pk, name=name) for pk, name, supports in offers if needs <= set(supports)]


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _initialise(run: Run, clock: Clock, is_stopping: Callable[[], bool]) -> bool:
    """Make version 0 of a run's model, measure it, and open round 1."""
    try:
        stored = aggregation.initial_model(run)
        model = GlobalModel(run=run, version=0, created_at=clock(), **vars(stored))
        model.metrics = aggregation.evaluate_model(model, is_stopping=is_stopping)
    except aggregation.Stopped:
        return False  # no row names it yet: the next coordinator draws the same
    except Exception as error:
        if is_outage(error):
            raise  # the run can begin when the database is back
        # Whatever a task or strategy raises is told on the run, which cannot begin.
        logger.exception("run %s cannot begin", run.pk)
        return _fail_to_begin(run, error, clock())
    now = clock()
    try:
        with events.transaction():
            locked = lock_run(run.pk)
            if locked.state != RunState.RUNNING:
                return False
            model.published_at = now
            model.save()
            Run.objects.filter(pk=run.pk).update(best_model=model)
            locked.refresh_from_db()
            model.run = locked
            events.record(locked.stream, model_completed(model), now)
            settle_run(locked, now=now)
    except IntegrityError:
        logger.info("run %s got its initial model from another coordinator", run.pk)
        return False
    return True


def _fail_to_begin(run: Run, error: Exception, now: datetime) -> bool:
    with events.transaction():
        locked = lock_run(run.pk)
        # Nobody claims this work: another coordinator may have done it, where it could be done.
        if locked.state != RunState.RUNNING or locked.models.exists():
            return False
        move_run(locked, RunState.FAILED, now=now, reason=f"the initial model could not be made: {error}")
    return True


def _say_what_it_waits_for(round_: Round, reason: str, now: datetime) -> bool:
    """Keep on the round what it waits for, when that has changed; progress of a training round is told elsewhere."""
    if round_.state == RoundState.PENDING and reason != round_.reason:
        with events.transaction():
            locked = lock_run(round_.run_id)
            if Round.objects.filter(pk=round_.pk, state=RoundState.PENDING).update(reason=reason):
                tell_run(locked, now)
    return False


def _select(round_: Round, clock: Clock) -> bool:
    """Select a cohort for a round that was waiting for it."""
    with events.transaction():
        lock_again(round_.run)
        if not _assign_if_enough(round_, clock):
            raise LostRace("the devices were taken meanwhile")
    return True


def _select_at_once(round_: Round, clock: Clock) -> bool:
    """Select the cohort of a round that this transaction has opened, so that devices need not wait for another.

    Not where another run has waited longer for devices; and where one takes a device meanwhile, the round is still
    open. Who drives all runs serves them in order.
    """
    if _another_waits_longer(round_.run):
        return False
    try:
        with events.transaction():
            return _assign_if_enough(round_, clock)
    except LostRace:
        return False


def _another_waits_longer(run: Run) -> bool:
    longer = Q(run__last_served_at__isnull=True) | Q(run__last_served_at__lt=run.last_served_at)
    waiting = Round.objects.filter(longer, state=RoundState.PENDING, run__state=RunState.RUNNING)
    return waiting.exclude(run=run.pk).exists()


def _assign_if_enough(round_: Round, clock: Clock) -> bool:
    """Let a pending round train where there are devices for it; its run is locked."""
    eligible = eligible_devices(round_.run, clock())
    # It begins after what its devices did until now has ended, and however long the lock was waited for.
    now = clock()
    match next_step(_facts(round_, [], eligible), now):
        case Select(size):
            _assign(round_, eligible, size, now)
            return True
        case _:
            return False


def _assign(round_: Round, eligible: Sequence[Device], size: int, now: datetime) -> None:
    """Select a cohort and give each of its devices an assignment."""
    run = round_.run
    changes = {
        "state": RoundState.TRAINING,
        "reason": "",
        "started_at": now,
        "deadline_at": now + timedelta(seconds=run.deadline_seconds),
    }
    if not Round.objects.filter(pk=round_.pk, state=RoundState.PENDING).update(**changes):
        raise LostRace("the round was taken meanwhile")
    by_name = {device.name: device for device in eligible}
    cohort = select_cohort(list(by_name), size, cohort_seed(run.seed, round_.number))
    try:
        assignments = Assignment.objects.bulk_create(
            Assignment(round=round_, device=by_name[name], cohort_index=index, assigned_at=now)
            for index, name in enumerate(cohort)
        )
    except IntegrityError as error:
        raise LostRace("a device was selected for another run meanwhile") from error
    Run.objects.filter(pk=run.pk).update(last_served_at=now)
    _set(round_, changes)
    for assignment in assignments:
        events.record(assignment.device.stream, assignment_message(assignment), now)
        events.record(events.SYSTEM, assignment_progress(assignment, None), now)
    tell_round(run, round_, [AssignmentState.ASSIGNED] * size, now)


def _set(row: Round | GlobalModel, changes: Mapping[str, object]) -> None:
    """Let a row in hand say what has just been written."""
    for name, value in changes.items():
        setattr(row, name, value)


def _fail(round_: Round, now: datetime) -> bool:
    with events.transaction():
        run = lock_run(round_.run_id)
        # An update on its way in holds the round, not the run. The facts are asked again, now that they stand still:
        # the update that was missing may just have come.
        held = Round.objects.select_for_update(of=("self",)).select_related("run").get(pk=round_.pk)
        step = next_step(facts_of(held, now), now)
        if not isinstance(step, Fail):
            raise LostRace("it need not fail any more")
        end_round(round_, RoundState.FAILED, reason=step.reason, now=now)
        tell_run(run, now)
        settle_run(run, now=now)
        events.wake_coordinators()
    return True


def _aggregate(round_: Round, states: list[str], clock: Clock, is_stopping: Callable[[], bool]) -> bool:
    """Close the round to updates, aggregate those it has, and name the candidate."""
    claim = _claim(round_, states, (RoundState.TRAINING, RoundState.AGGREGATING), RoundState.AGGREGATING, clock)
    with _kept(claim):
        try:
            stored = aggregation.aggregate(round_, is_stopping=is_stopping)
        except aggregation.Stopped:
            _give_back(claim)
            return False
        except Exception as error:
            if is_outage(error):
                raise  # it is done again when the database is back and the claim has run out
            # Whatever a strategy raises fails the round with that reason; the last model stays the newest.
            logger.exception("round %s of run %s could not be aggregated", round_.number, round_.run_id)
            return _fail_claimed(claim, f"aggregation failed: {error}", claim.now())
        candidate = _name_candidate(claim, stored, claim.now())
        return _measure_and_publish(claim, candidate, is_stopping)


def _evaluate(round_: Round, states: list[str], clock: Clock, is_stopping: Callable[[], bool]) -> bool:
    """Take over the evaluation of a candidate from a coordinator that is gone."""
    claim = _claim(round_, states, (RoundState.EVALUATING,), RoundState.EVALUATING, clock)
    with _kept(claim):
        candidate = GlobalModel.objects.get(round=round_)
        candidate.run, candidate.round = round_.run, round_
        return _measure_and_publish(claim, candidate, is_stopping)


def _name_candidate(claim: _Claim, stored: aggregation.StoredModel, now: datetime) -> GlobalModel:
    round_ = claim.round
    with events.transaction():
        lock_again(round_.run)
        moved = Round.objects.filter(pk=round_.pk, state=RoundState.AGGREGATING, claim_token=claim.token).update(
            state=RoundState.EVALUATING
        )
        if not moved:
            raise LostRace("the claim on the aggregation was lost")
        parent = round_.base_model
        candidate = GlobalModel.objects.create(
            run=round_.run, version=parent.version + 1, parent=parent, round=round_, created_at=now, **vars(stored)
        )
        round_.state = RoundState.EVALUATING
        tell_round(round_.run, round_, claim.states, now)
    return candidate


def _measure_and_publish(claim: _Claim, candidate: GlobalModel, is_stopping: Callable[[], bool]) -> bool:
    try:
        metrics = aggregation.evaluate_model(candidate, is_stopping=is_stopping)
    except aggregation.Stopped:
        _give_back(claim)
        return False
    except Exception as error:
        if is_outage(error):
            raise
        # A model that cannot be measured is not published; the reason is told.
        logger.exception("round %s of run %s could not be evaluated", claim.round.number, claim.round.run_id)
        return _fail_claimed(claim, f"evaluation failed: {error}", claim.now())
    _publish(claim, candidate, metrics)
    return True


def _publish(claim: _Claim, model: GlobalModel, metrics: aggregation.Metrics | None) -> None:
    """Make the candidate the newest version, end the round, and open the next, all or nothing."""
    round_, run = claim.round, claim.round.run
    with events.transaction():
        lock_again(run)
        now = claim.now()
        _complete(claim, now)
        published = {"metrics": metrics, "published_at": now}
        GlobalModel.objects.filter(pk=model.pk).update(**published)
        _set(model, published)
        if _is_better(model, run.best_model):
            Run.objects.filter(pk=run.pk).update(best_model=model)
            run.best_model = model
        events.record(run.stream, model_completed_from(model, claim.states), now)
        events.record(run.stream, round_completed(round_, model, claim.states), now)
        opened = open_next(run, _facts_after(round_), model, now)
        if opened is not None and not _select_at_once(opened, claim.clock):
            tell_round(run, opened, [], now)
        if run.state == RunState.PAUSED:
            tell_run(run, now)  # no round that opens tells it
        events.wake_coordinators()


def _complete(claim: _Claim, now: datetime) -> None:
    """End the round with what its devices reported, and let their files go unless the run keeps them."""
    round_ = claim.round
    accepted = Update.objects.filter(assignment__round=round_.pk, state=UpdateState.ACCEPTED)
    reports = list(accepted.order_by("assignment__cohort_index").values_list("num_examples", "metrics", "file"))
    ended = {
        "state": RoundState.COMPLETED,
        "ended_at": now,
        "claim_token": "",
        "claimed_until": None,
        "device_metrics": spreads_of([(num_examples, metrics) for num_examples, metrics, _ in reports]),
    }
    # The token in the WHERE clause is the fence: a coordinator that lost its claim publishes nothing.
    mine = Round.objects.filter(pk=round_.pk, state=RoundState.EVALUATING, claim_token=claim.token)
    if not mine.update(**ended):
        raise LostRace("the claim on the evaluation was lost")
    _set(round_, ended)
    if not round_.run.keep_updates:
        forget_files(round_, [file for _, _, file in reports])


def _facts_after(completed: Round) -> RunFacts:
    run = completed.run
    return RunFacts(
        state=RunState(run.state),
        rounds=run.rounds,
        last_number=completed.number,
        failed_in_a_row=0,
        stop_after_round=run.stop_after_round,
    )


def _is_better(model: GlobalModel, best: GlobalModel | None) -> bool:
    mine, theirs = _score_of(model), _score_of(best) if best else None
    return theirs is None or (mine is not None and mine > theirs)


def _score_of(model: GlobalModel) -> float | None:
    # Only where the server could not measure is the round read, for what the devices said.
    reported = model.round.device_metrics if model.metrics is None and model.round else {}
    return score(model.metrics, reported)


def _fail_claimed(claim: _Claim, reason: str, now: datetime) -> bool:
    round_ = claim.round
    with events.transaction():
        run = lock_run(round_.run_id)
        if not Round.objects.filter(pk=round_.pk, claim_token=claim.token).exists():
            raise LostRace("the claim was lost before the failure could be told")
        failed = ModelAggregation(
            run_id=run.pk,
            task=run.task,
            round=round_.number,
            phase="failed",
            strategy=run.strategy,
            reason=reason,
        )
        events.record(run.stream, failed, now)
        end_round(round_, RoundState.FAILED, reason=reason, now=now)
        tell_run(run, now)
        settle_run(run, now=now)
        events.wake_coordinators()
    return True


# ── claims ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _claim(
    round_: Round, states: list[str], origins: tuple[RoundState, ...], state: RoundState, clock: Clock
) -> _Claim:
    """Take a round for this coordinator: at its move from training, or when an earlier claim ran out.

    Args:
        states: of its assignments, as read just before.
    """
    token, run = secrets.token_hex(8), round_.run
    with events.transaction():
        lock_again(run)
        now = clock()  # however long the lock was waited for
        free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
        closes = round_.state == RoundState.TRAINING
        changes: dict[str, object] = {"state": state, "claim_token": token, "claimed_until": _claim_until(now)}
        if closes:
            changes["closed_at"] = now
        # The WHERE clause is the lock. Where the deadline was extended meanwhile, the facts are to be looked at again.
        mine = Round.objects.filter(free, pk=round_.pk, state__in=origins, deadline_at=round_.deadline_at)
        if not mine.update(**changes):
            raise LostRace("another coordinator is at work on it, or its deadline was extended")
        _set(round_, changes)
        if not OPEN_ASSIGNMENTS.isdisjoint(states):
            close_assignments(round_, AssignmentState.EXPIRED, reason="the round closed at its deadline", now=now)
            states = states_in(round_)
        if closes:
            events.record(run.stream, _started(run, round_, states), now)
            tell_round(run, round_, states, now)
    return _Claim(round_, token, states, clock)


def _started(run: Run, round_: Round, states: Sequence[str]) -> ModelAggregation:
    return ModelAggregation(
        run_id=run.pk,
        task=run.task,
        round=round_.number,
        phase="started",
        strategy=run.strategy,
        updates_received=states.count(AssignmentState.ACCEPTED),
        updates_planned=len(states),
        updates_rejected=states.count(AssignmentState.REJECTED),
    )


def _give_back(claim: _Claim) -> None:
    """Let the next coordinator take over at once, since this one goes."""
    Round.objects.filter(pk=claim.round.pk, claim_token=claim.token).update(claim_token="", claimed_until=None)
    logger.info("round %s of run %s is left to the next coordinator", claim.round.number, claim.round.run_id)


def _claim_until(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.QFLARE_CLAIM_SECONDS)


@contextmanager
def _kept(claim: _Claim) -> Iterator[None]:
    """Renew a claim at a third of its time, from a thread, for as long as the block works."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(claim, done), name=f"claim-{claim.round.pk}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _keep(claim: _Claim, done: threading.Event) -> None:
    pause = settings.QFLARE_CLAIM_SECONDS / 3
    if done.wait(pause):
        return  # most work is short, and its keeper needs no connection to the database
    try:
        while _renew(claim) and not done.wait(pause):
            pass
    finally:
        connection.close()


def _renew(claim: _Claim) -> bool:
    """Let a claim last from now; say whether it is still ours."""
    mine = Round.objects.filter(pk=claim.round.pk, claim_token=claim.token)
    try:
        return bool(mine.update(claimed_until=_claim_until(claim.now())))
    except DatabaseError:
        # Two more tries fit before the claim runs out; if they fail too, another coordinator takes over.
        logger.exception("the claim on round %s could not be renewed", claim.round.pk)
        connection.close()
        return True
