"""The one idempotent driver: looks at a run or round, asks `lifecycle` what comes next, and does that, once.

Whoever notices something calls `advance_run` and `advance`. A conditional UPDATE is the lock: who changes no row was
not first and leaves. Aggregating and evaluating hold a claim, a token with a time; what they make is published only by
an UPDATE that still finds the token, so a coordinator that was away too long publishes nothing.
"""

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    RunState,
    Select,
    Wait,
    next_step,
)
from fl.metrics import score, spreads_of
from fl.models import Assignment, Device, GlobalModel, Round, Run, Update
from fl.models.update import UpdateState
from fl.payloads import assignment_message, assignment_progress_from, model_completed, round_completed
from fl.rounds import (
    close_assignments,
    end_round,
    let_go_of_files,
    lock_run,
    move_run,
    settle_run,
    states_in,
    tell_round,
    tell_run,
)
from fl.seeds import cohort_seed
from fl.strategies import required_support

logger = logging.getLogger(__name__)


def advance_run(run_id: int, now: datetime) -> bool:
    """Give a running run its initial model or its next round where it lacks one; say whether anything was done."""
    run = Run.objects.get(pk=run_id)
    if run.state != RunState.RUNNING or run.round_set.filter(ended_at__isnull=True).exists():
        return False
    if not run.models.exists():
        return _initialise(run, now)
    with events.transaction():
        locked = lock_run(run_id)
        settle_run(locked, now=now)
    return True


def advance(round_id: int, now: datetime) -> bool:
    """Do the one thing that a round's facts call for at `now`; say whether anything was done.

    Calling it again, or in two processes at once, does no harm.
    """
    round_ = Round.objects.select_related("run", "base_model").get(pk=round_id)
    step = next_step(facts_of(round_, now), now)
    try:
        match step:
            case Over():
                return False
            case Wait(reason):
                return _say_what_it_waits_for(round_, reason, now)
            case Select(size):
                return _select(round_, size, now)
            case Fail():
                return _fail(round_, now)
            case Aggregate():
                return _aggregate(round_, now)
            case Evaluate():
                return _evaluate(round_, now)
    except LostRace as race:
        logger.info("round %s of run %s: %s", round_.number, round_.run_id, race)
        return False


# ── facts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def facts_of(round_: Round, now: datetime) -> RoundFacts:
    """Read what one needs to know of a round."""
    run = round_.run
    states = states_in(round_)
    return RoundFacts(
        state=RoundState(round_.state),
        run_state=RunState(run.state),
        opened_at=round_.opened_at,
        cohort_size=run.cohort_size,
        quorum=run.quorum,
        cohort_wait_seconds=run.cohort_wait_seconds,
        eligible=len(eligible_devices(run, now)) if round_.state == RoundState.PENDING else 0,
        open_assignments=sum(state in OPEN_ASSIGNMENTS for state in states),
        accepted=states.count(AssignmentState.ACCEPTED),
        deadline_at=round_.deadline_at,
        claimed_until=round_.claimed_until,
    )


def eligible_devices(run: Run, now: datetime) -> list[int]:
    """Return the ids of devices that could be selected for this run now, in rising order.

    Active, online, idle, with the same task digest and protocol as the server, enough examples, and a training loop
    that can do what the strategy needs.
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
        .exclude(pk__in=Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).values("device"))
        .order_by("pk")
        .values_list("pk", "tasks__supports")
    )
    return [pk for pk, supports in offers if needs <= set(supports)]


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _initialise(run: Run, now: datetime) -> bool:
    """Make version 0 of a run's model, measure it, and open round 1."""
    try:
        stored = aggregation.initial_model(run)
        model = GlobalModel(run=run, version=0, created_at=now, **vars(stored))
        model.metrics = aggregation.evaluate_model(model)
    except Exception as error:
        # Whatever a task or strategy raises is told on the run, which cannot begin.
        logger.exception("run %s cannot begin", run.pk)
        return _fail_to_begin(run, error, now)
    try:
        with events.transaction():
            locked = lock_run(run.pk)
            if locked.state != RunState.RUNNING:
                return False
            model.published_at = now
            model.save()
            Run.objects.filter(pk=run.pk).update(best_model=model)
            locked.refresh_from_db()
            events.record(locked.stream, model_completed(model), now)
            settle_run(locked, now=now)
    except IntegrityError:
        logger.info("run %s got its initial model from another coordinator", run.pk)
        return False
    return True


def _fail_to_begin(run: Run, error: Exception, now: datetime) -> bool:
    with events.transaction():
        locked = lock_run(run.pk)
        if locked.state != RunState.RUNNING:
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


def _select(round_: Round, size: int, now: datetime) -> bool:
    """Select a cohort and give each of its devices an assignment."""
    with events.transaction():
        run = lock_run(round_.run_id)
        changes = {
            "state": RoundState.TRAINING,
            "reason": "",
            "started_at": now,
            "deadline_at": now + timedelta(seconds=run.deadline_seconds),
        }
        started = Round.objects.filter(pk=round_.pk, state=RoundState.PENDING).update(**changes)
        eligible = eligible_devices(run, now)
        if not started or run.state != RunState.RUNNING or len(eligible) < size:
            raise LostRace("the devices or the round were taken meanwhile")
        by_name = dict(Device.objects.filter(pk__in=eligible).values_list("name", "pk"))
        cohort = select_cohort(list(by_name), size, cohort_seed(run.seed, round_.number))
        try:
            Assignment.objects.bulk_create(
                Assignment(round=round_, device_id=by_name[name], cohort_index=index, assigned_at=now)
                for index, name in enumerate(cohort)
            )
        except IntegrityError as error:
            raise LostRace("a device was selected for another run meanwhile") from error
        Run.objects.filter(pk=run.pk).update(last_served_at=now)
        _tell_cohort(round_.pk, now)
        for name, value in changes.items():
            setattr(round_, name, value)
        tell_round(run, round_, [AssignmentState.ASSIGNED] * size, now)
    return True


def _tell_cohort(round_id: int, now: datetime) -> None:
    assignments = Assignment.objects.filter(round=round_id).select_related(
        "device", "round", "round__run", "round__base_model"
    )
    for assignment in assignments.order_by("cohort_index"):
        events.record(assignment.device.stream, assignment_message(assignment), now)
        events.record(events.SYSTEM, assignment_progress_from(assignment, None), now)


def _fail(round_: Round, now: datetime) -> bool:
    with events.transaction():
        run = lock_run(round_.run_id)
        # The facts are asked again, now that they stand still: the update that was missing may just have come.
        step = next_step(facts_of(Round.objects.select_related("run").get(pk=round_.pk), now), now)
        if not isinstance(step, Fail):
            raise LostRace("it need not fail any more")
        end_round(round_, RoundState.FAILED, reason=step.reason, now=now)
        tell_run(run, now)
        settle_run(run, now=now)
        events.wake_coordinators()
    return True


def _aggregate(round_: Round, now: datetime) -> bool:
    """Close the round to updates, aggregate those it has, and name the candidate."""
    token = _claim(round_, (RoundState.TRAINING, RoundState.AGGREGATING), RoundState.AGGREGATING, now)
    with _kept_claim(round_.pk, token):
        try:
            stored = aggregation.aggregate(round_)
        except Exception as error:
            # Whatever a strategy raises fails the round with that reason; the last model stays the newest.
            logger.exception("round %s of run %s could not be aggregated", round_.number, round_.run_id)
            return _fail_claimed(round_, token, f"aggregation failed: {error}", timezone.now())
        _name_candidate(round_, token, stored, timezone.now())
        return _measure_and_publish(round_, token)


def _evaluate(round_: Round, now: datetime) -> bool:
    """Take over the evaluation of a candidate from a coordinator that is gone."""
    token = _claim(round_, (RoundState.EVALUATING,), RoundState.EVALUATING, now)
    with _kept_claim(round_.pk, token):
        return _measure_and_publish(round_, token)


def _name_candidate(round_: Round, token: str, stored: aggregation.StoredModel, now: datetime) -> None:
    with events.transaction():
        run = lock_run(round_.run_id)
        moved = Round.objects.filter(pk=round_.pk, state=RoundState.AGGREGATING, claim_token=token).update(
            state=RoundState.EVALUATING
        )
        if not moved:
            raise LostRace("the claim on the aggregation was lost")
        parent = round_.base_model
        GlobalModel.objects.create(
            run=run, version=parent.version + 1, parent=parent, round=round_, created_at=now, **vars(stored)
        )
        round_.state = RoundState.EVALUATING
        tell_round(run, round_, states_in(round_), now)


def _measure_and_publish(round_: Round, token: str) -> bool:
    model = GlobalModel.objects.select_related("run", "round").get(round=round_)
    try:
        metrics = aggregation.evaluate_model(model)
    except Exception as error:
        # A model that cannot be measured is not published; the reason is told.
        logger.exception("round %s of run %s could not be evaluated", round_.number, round_.run_id)
        return _fail_claimed(round_, token, f"evaluation failed: {error}", timezone.now())
    _publish(round_, token, model, metrics, timezone.now())
    return True


def _publish(round_: Round, token: str, model: GlobalModel, metrics: aggregation.Metrics | None, now: datetime) -> None:
    """Make the candidate the newest version, end the round, and open the next, all or nothing."""
    with events.transaction():
        run = lock_run(round_.run_id)
        spreads = spreads_of(list(_reports(round_)))
        # The token in the WHERE clause is the fence: a coordinator that lost its claim publishes nothing.
        done = Round.objects.filter(pk=round_.pk, state=RoundState.EVALUATING, claim_token=token).update(
            state=RoundState.COMPLETED, ended_at=now, claim_token="", claimed_until=None, device_metrics=spreads
        )
        if not done:
            raise LostRace("the claim on the evaluation was lost")
        GlobalModel.objects.filter(pk=model.pk).update(metrics=metrics, published_at=now)
        round_.refresh_from_db()
        model.refresh_from_db()
        model.run, model.round = run, round_
        if _is_better(model, run.best_model):
            Run.objects.filter(pk=run.pk).update(best_model=model)
            run.best_model = model
        let_go_of_files(round_)
        events.record(run.stream, model_completed(model), now)
        events.record(run.stream, round_completed(round_, model), now)
        settle_run(run, now=now)
        if run.state == RunState.PAUSED:
            tell_run(run, now)  # no round that opens tells it
        events.wake_coordinators()


def _is_better(model: GlobalModel, best: GlobalModel | None) -> bool:
    mine = score(model.metrics, model.round.device_metrics if model.round else {})
    theirs = score(best.metrics, best.round.device_metrics if best.round else {}) if best else None
    return theirs is None or (mine is not None and mine > theirs)


def _reports(round_: Round) -> Iterator[tuple[int, dict[str, float]]]:
    accepted = Update.objects.filter(assignment__round=round_, state=UpdateState.ACCEPTED)
    yield from accepted.order_by("assignment__cohort_index").values_list("num_examples", "metrics")


def _fail_claimed(round_: Round, token: str, reason: str, now: datetime) -> bool:
    with events.transaction():
        run = lock_run(round_.run_id)
        if not Round.objects.filter(pk=round_.pk, claim_token=token).exists():
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


def _claim(round_: Round, origins: tuple[RoundState, ...], state: RoundState, now: datetime) -> str:
    """Take a round for this coordinator: at its move from training, or when an earlier claim ran out."""
    token = secrets.token_hex(8)
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    with events.transaction():
        run = lock_run(round_.run_id)
        closes = round_.state == RoundState.TRAINING
        changes: dict[str, object] = {"state": state, "claim_token": token, "claimed_until": _claim_until(now)}
        if closes:
            changes["closed_at"] = now
        # The WHERE clause is the lock.
        if not Round.objects.filter(free, pk=round_.pk, state__in=origins).update(**changes):
            raise LostRace("another coordinator is at work on it")
        for name, value in changes.items():
            setattr(round_, name, value)
        if closes:
            close_assignments(round_, AssignmentState.EXPIRED, reason="the round closed at its deadline", now=now)
            states = states_in(round_)
            events.record(run.stream, _started(run, round_, states), now)
            tell_round(run, round_, states, now)
    return token


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


def _claim_until(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.QFLARE_CLAIM_SECONDS)


@contextmanager
def _kept_claim(round_id: int, token: str) -> Iterator[None]:
    """Renew a claim at a third of its time, from a thread, for as long as the block works."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep_claim, args=(round_id, token, done), name=f"claim-{round_id}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _keep_claim(round_id: int, token: str, done: threading.Event) -> None:
    try:
        while not done.wait(settings.QFLARE_CLAIM_SECONDS / 3):
            try:
                until = _claim_until(timezone.now())
                if not Round.objects.filter(pk=round_id, claim_token=token).update(claimed_until=until):
                    return
            except DatabaseError:
                # Two more tries fit before the claim runs out; if they fail too, another coordinator takes over.
                logger.exception("the claim on round %s could not be renewed", round_id)
                connection.close()
    finally:
        connection.close()
