"""Moves of runs, rounds and assignments: each one conditional UPDATE and its event, inside the caller's transaction.

Only use cases and `fl.coordination` call these. Locks are taken in one order: run, round, assignment, streams.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile

from django.db.models import QuerySet
from django.db.transaction import on_commit

from edge.protocol.server import Cancel, ErrorNotification
from fl import events, files
from fl.exceptions import LostRace, NotFound
from fl.lifecycle import (
    ASSIGNMENT_MOVES,
    MAX_FAILED_ROUNDS_IN_A_ROW,
    OPEN_ASSIGNMENTS,
    OPEN_ROUNDS,
    ROUND_MOVES,
    RUN_MOVES,
    AssignmentState,
    EndRun,
    OpenRound,
    RoundState,
    RunFacts,
    RunState,
    after_round,
)
from fl.models import Assignment, GlobalModel, Round, Run, Update
from fl.notifications import notify
from fl.payloads import assignment_progress, deadline_extended, run_status, run_status_from
from fl.prepared import Prepared, PreparedUpdate


def lock_run(run_id: int) -> Run:
    """Return a run and keep it as it is until the transaction ends.

    On SQLite the transaction itself is the lock (BEGIN IMMEDIATE), on PostgreSQL the row is.

    Raises:
        NotFound: there is no such run.
    """
    run = Run.objects.select_for_update(of=("self",)).select_related("best_model").filter(pk=run_id).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run


def lock_again(run: Run) -> None:
    """Lock a running or paused run as `lock_run` does, and bring the one in hand up to date.

    That is what people change. Its best model, and when it was served, change only under a claim on its open round or
    as that opens, and so not for who holds the one or does the other.
    """
    row = Run.objects.select_for_update().values_list("state", "reason", "stop_after_round").get(pk=run.pk)
    run.state, run.reason, run.stop_after_round = row


def move_run(run: Run, state: RunState, *, now: datetime, reason: str = "") -> Run:
    """Move a run to a state and tell.

    Raises:
        LostRace: it is in no state that leads there, any more.
    """
    allowed = [origin for origin, moves in RUN_MOVES.items() if state in moves]
    ends = not RUN_MOVES[state]
    changes: dict[str, object] = {"state": state, "reason": reason[:500]}
    if ends:
        changes["ended_at"] = now
    if state is RunState.RUNNING and run.started_at is None:
        changes["started_at"] = now
    if not Run.objects.filter(pk=run.pk, state__in=allowed).update(**changes):
        raise LostRace(f"run {run.pk} can no longer become {state}")
    run.refresh_from_db()
    tell_run(run, now)
    return run


def tell_run(run: Run, now: datetime) -> None:
    """Record the state of a run as it is now."""
    events.record(run.stream, run_status(run), now)


def tell_round(run: Run, round_: Round, states: Sequence[str], now: datetime) -> None:
    """Record the state of a run whose open round and its assignments' states one has just read."""
    events.record(run.stream, run_status_from(run, round_, states, round_.base_model), now)


_states = Prepared(
    lambda round_id: Assignment.objects.filter(round=round_id).order_by("cohort_index").values_list("state")
)


def states_in(round_: Round) -> list[str]:
    """Return the states of a round's assignments, by their place in the cohort."""
    return [state for (state,) in _states.all(round_id=round_.pk)]


def open_round_of(run: Run) -> Round | None:
    """Return the round of a run that has not ended."""
    return run.round_set.filter(state__in=OPEN_ROUNDS).first()


def newest_model(run: Run) -> GlobalModel | None:
    """Return the newest published version of a run."""
    return run.models.filter(published_at__isnull=False).order_by("-version").first()


def settle_run(run: Run, *, now: datetime) -> None:
    """Open the round that follows, or end the run, where its last round has ended; the caller has locked the run."""
    base = newest_model(run)
    if base is None or open_round_of(run) is not None or run.state not in (RunState.RUNNING, RunState.PAUSED):
        return
    opened = open_next(run, _facts(run), base, now)
    if opened is not None:
        tell_round(run, opened, [], now)
        events.wake_coordinators()


def open_next(run: Run, facts: RunFacts, base: GlobalModel, now: datetime) -> Round | None:
    """Open the round that follows the last, for the caller to tell of, or end the run; the caller has locked the run.

    Args:
        base: the newest published version.
    """
    match after_round(facts):
        case OpenRound(number):
            return Round.objects.create(run=run, number=number, base_model=base, opened_at=now)
        case EndRun(state, reason):
            move_run(run, state, now=now, reason=reason)
    return None


def _facts(run: Run) -> RunFacts:
    newest = list(run.round_set.order_by("-number").values_list("number", "state")[:MAX_FAILED_ROUNDS_IN_A_ROW])
    failed = len(list(takewhile(lambda row: row[1] == RoundState.FAILED, newest)))
    return RunFacts(
        state=RunState(run.state),
        rounds=run.rounds,
        last_number=newest[0][0] if newest else 0,
        failed_in_a_row=failed,
        stop_after_round=run.stop_after_round,
    )


def extend_deadline(round_: Round, seconds: float, *, reason: str, now: datetime) -> None:
    """Extend the deadline of a round that is training, and tell by how much.

    One that has passed, and that no coordinator has seen yet, is extended from now on: what people are given is the
    whole time that they asked for.

    Raises:
        LostRace: it is not training any more.
    """
    deadline_at = max(round_.deadline_at or now, now) + timedelta(seconds=seconds)
    if not Round.objects.filter(pk=round_.pk, state=RoundState.TRAINING).update(deadline_at=deadline_at):
        raise LostRace(f"round {round_.pk} is not training any more")
    round_.deadline_at = deadline_at
    events.record(round_.run.stream, deadline_extended(round_, seconds, reason), now)


def end_round(round_: Round, state: RoundState, *, reason: str, now: datetime) -> None:
    """End an open round as failed or stopped, with its open assignments, and tell why.

    Raises:
        LostRace: it is in no state that leads there, any more.
    """
    allowed = [origin for origin, moves in ROUND_MOVES.items() if state in moves]
    ended = Round.objects.filter(pk=round_.pk, state__in=allowed).update(
        state=state, reason=reason[:500], ended_at=now, claim_token="", claimed_until=None
    )
    if not ended:
        raise LostRace(f"round {round_.pk} can no longer become {state}")
    round_.refresh_from_db()
    GlobalModel.objects.filter(round=round_, published_at__isnull=True).delete()
    close_assignments(round_, _ending_of(state), reason=reason, now=now)
    let_go_of_files(round_)
    if state is RoundState.FAILED:
        notify(
            round_.run.stream,
            ErrorNotification(
                code="round_failed",
                severity="warning",
                title=f"Round {round_.number} of {round_.run.name} failed",
                detail=reason,
                action="See the round's assignments for what became of each device.",
                run_id=round_.run_id,
                round=round_.number,
            ),
            now,
        )


def _ending_of(state: RoundState) -> AssignmentState:
    return AssignmentState.CANCELLED if state is RoundState.STOPPED else AssignmentState.EXPIRED


def let_go_of_files(round_: Round) -> None:
    """Delete the files of a round's updates after the commit, unless the run keeps them."""
    if not round_.run.keep_updates:
        forget_files(round_, list(_updates_with_files(round_).values_list("file", flat=True)))


def forget_files(round_: Round, names: Sequence[str]) -> None:
    """Delete after the commit the files, as one has just read, of a round's updates."""
    _updates_with_files(round_).update(file="")
    on_commit(partial(files.delete_soon, names), robust=True)


def _updates_with_files(round_: Round) -> QuerySet[Update]:
    return Update.objects.filter(assignment__in=Assignment.objects.filter(round=round_)).exclude(file="").order_by()


def close_assignments(round_: Round, state: AssignmentState, *, reason: str, now: datetime) -> None:
    """End every assignment of a round that is still open."""
    still_open: Iterable[Assignment] = (
        round_.assignments.filter(state__in=OPEN_ASSIGNMENTS)
        .select_related("device", "round", "round__run")
        .order_by("cohort_index")
    )
    for assignment in still_open:
        end_assignment(assignment, state, reason=reason, now=now)


def _end_as(state: AssignmentState) -> PreparedUpdate:
    allowed = [origin for origin, moves in ASSIGNMENT_MOVES.items() if state in moves]
    columns = ["state", "reason", "ended_at"] + ["progress"] * (state is AssignmentState.ACCEPTED)
    return PreparedUpdate(lambda assignment: Assignment.objects.filter(pk=assignment, state__in=allowed), *columns)


_ends = {state: _end_as(state) for state in AssignmentState if state not in OPEN_ASSIGNMENTS}


def end_assignment(
    assignment: Assignment, state: AssignmentState, *, reason: str, now: datetime, update: Update | None = None
) -> None:
    """End an open assignment; its device is told to stop where it could still be at work.

    Args:
        update: what the device sent, where that ends it.

    Raises:
        LostRace: it is in no state that leads there, any more.
    """
    assignment_fields: dict[str, object] = {"state": state, "reason": reason[:500], "ended_at": now}
    if state is AssignmentState.ACCEPTED:
        assignment_fields["progress"] = 1.0
    if not _ends[state](assignment_fields, assignment=assignment.pk):
        raise LostRace(f"assignment {assignment.pk} can no longer become {state}")
    for name, value in assignment_fields.items():
        setattr(assignment, name, value)
    if state in (AssignmentState.EXPIRED, AssignmentState.CANCELLED):
        cancel = Cancel(
            assignment_id=assignment.pk,
            run_id=assignment.round.run_id,
            round=assignment.round.number,
            reason=reason,
        )
        events.record(assignment.device.stream, cancel, now)
    events.record(events.SYSTEM, assignment_progress(assignment, update), now)
