"""What happens next: the states of runs, rounds, assignments and devices, their moves, and one pure decision.

No queries here and no clock: `next_step(facts, now)` looks at the facts of one round and says what they call for.
`fl.coordination` carries it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class RunState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class RoundState(StrEnum):
    PENDING = "pending"
    TRAINING = "training"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class AssignmentState(StrEnum):
    ASSIGNED = "assigned"
    TRAINING = "training"
    UPLOADING = "uploading"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LATE = "late"


class DeviceState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


RUN_MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.STOPPED, RunState.FAILED}),
    RunState.RUNNING: frozenset({RunState.PAUSED, RunState.COMPLETED, RunState.FAILED, RunState.STOPPED}),
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.COMPLETED, RunState.FAILED, RunState.STOPPED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.STOPPED: frozenset(),
}

ROUND_MOVES: Mapping[RoundState, frozenset[RoundState]] = {
    RoundState.PENDING: frozenset({RoundState.TRAINING, RoundState.STOPPED}),
    RoundState.TRAINING: frozenset({RoundState.AGGREGATING, RoundState.FAILED, RoundState.STOPPED}),
    RoundState.AGGREGATING: frozenset({RoundState.EVALUATING, RoundState.FAILED, RoundState.STOPPED}),
    RoundState.EVALUATING: frozenset({RoundState.COMPLETED, RoundState.FAILED, RoundState.STOPPED}),
    RoundState.COMPLETED: frozenset(),
    RoundState.FAILED: frozenset(),
    RoundState.STOPPED: frozenset(),
}

ASSIGNMENT_MOVES: Mapping[AssignmentState, frozenset[AssignmentState]] = {
    AssignmentState.ASSIGNED: frozenset(
        {
            AssignmentState.TRAINING,
            AssignmentState.UPLOADING,
            AssignmentState.ACCEPTED,
            AssignmentState.REJECTED,
            AssignmentState.FAILED,
            AssignmentState.EXPIRED,
            AssignmentState.CANCELLED,
        }
    ),
    AssignmentState.TRAINING: frozenset(
        {
            AssignmentState.UPLOADING,
            AssignmentState.ACCEPTED,
            AssignmentState.REJECTED,
            AssignmentState.FAILED,
            AssignmentState.EXPIRED,
            AssignmentState.CANCELLED,
        }
    ),
    AssignmentState.UPLOADING: frozenset(
        {
            AssignmentState.TRAINING,  # a device that was restarted before its update was on disk trains again
            AssignmentState.ACCEPTED,
            AssignmentState.REJECTED,
            AssignmentState.FAILED,
            AssignmentState.EXPIRED,
            AssignmentState.CANCELLED,
        }
    ),
    AssignmentState.ACCEPTED: frozenset(),
    AssignmentState.REJECTED: frozenset(),
    AssignmentState.FAILED: frozenset(),
    AssignmentState.EXPIRED: frozenset({AssignmentState.LATE}),
    AssignmentState.CANCELLED: frozenset({AssignmentState.LATE}),
    AssignmentState.LATE: frozenset(),
}

DEVICE_MOVES: Mapping[DeviceState, frozenset[DeviceState]] = {
    DeviceState.PENDING: frozenset({DeviceState.ACTIVE, DeviceState.REVOKED}),
    DeviceState.ACTIVE: frozenset({DeviceState.SUSPENDED, DeviceState.REVOKED}),
    DeviceState.SUSPENDED: frozenset({DeviceState.ACTIVE, DeviceState.REVOKED}),
    DeviceState.REVOKED: frozenset(),
}

OPEN_RUNS = frozenset({RunState.PENDING, RunState.RUNNING, RunState.PAUSED})
OPEN_ROUNDS = frozenset({RoundState.PENDING, RoundState.TRAINING, RoundState.AGGREGATING, RoundState.EVALUATING})
OPEN_ASSIGNMENTS = frozenset({AssignmentState.ASSIGNED, AssignmentState.TRAINING, AssignmentState.UPLOADING})
MAX_FAILED_ROUNDS_IN_A_ROW = 3


def run_actions(state: RunState, round_state: RoundState | None = None) -> list[str]:
    """Return the commands that a run in this state takes, in the order that pages show them.

    Args:
        round_state: of its newest round.
    """
    extend = ["extend_deadline"] if round_state is RoundState.TRAINING else []
    match state:
        case RunState.PENDING:
            return ["start", "stop_now"]
        case RunState.RUNNING:
            return ["pause", *extend, "stop_after_round", "stop_now"]
        case RunState.PAUSED:
            return ["resume", *extend, "stop_after_round", "stop_now"]
        case _:
            return []


@dataclass(frozen=True)
class RoundFacts:
    """What one needs to know of a round to say what happens next.

    Attributes:
        eligible: devices that could be selected now; counted for pending rounds only.
        open_assignments, accepted: assignments of the round that may still bring an update, and that did.
        claimed_until: until when a coordinator's claim on aggregating or evaluating is good.
    """

    state: RoundState
    run_state: RunState
    opened_at: datetime
    cohort_size: int
    quorum: int
    cohort_wait_seconds: float
    eligible: int = 0
    open_assignments: int = 0
    accepted: int = 0
    deadline_at: datetime | None = None
    claimed_until: datetime | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`, or before something happens; `reason` is what a person reads."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class Select:
    """Select a cohort of `size` devices and let them train."""

    size: int


@dataclass(frozen=True)
class Aggregate:
    """Claim the round and aggregate what was accepted; assignments still open expire."""


@dataclass(frozen=True)
class Evaluate:
    """Claim the round and evaluate its candidate model."""


@dataclass(frozen=True)
class Fail:
    """The round fails for this reason."""

    reason: str


@dataclass(frozen=True)
class Over:
    """The round has ended; nothing happens next."""


Step = Wait | Select | Aggregate | Evaluate | Fail | Over


def next_step(facts: RoundFacts, now: datetime) -> Step:
    """Say what the facts of a round call for at `now`."""
    match facts.state:
        case RoundState.PENDING:
            return _next_of_pending(facts, now)
        case RoundState.TRAINING:
            return _next_of_training(facts, now)
        case RoundState.AGGREGATING:
            return _next_of_claimed(facts, now, Aggregate())
        case RoundState.EVALUATING:
            return _next_of_claimed(facts, now, Evaluate())
        case _:
            return Over()


def _next_of_pending(facts: RoundFacts, now: datetime) -> Step:
    if facts.run_state is not RunState.RUNNING:
        return Wait(f"the run is {facts.run_state}")
    if facts.eligible >= facts.cohort_size:
        return Select(facts.cohort_size)
    patience_ends = facts.opened_at + timedelta(seconds=facts.cohort_wait_seconds)
    if facts.eligible >= facts.quorum and now >= patience_ends:
        return Select(facts.eligible)
    needed = facts.quorum if now >= patience_ends else facts.cohort_size
    reason = f"waiting for devices: {facts.eligible} of {needed} ready"
    return Wait(reason, until=patience_ends if now < patience_ends else None)


def _next_of_training(facts: RoundFacts, now: datetime) -> Step:
    possible = facts.accepted + facts.open_assignments
    if possible < facts.quorum:
        return Fail(f"quorum can no longer be met: {possible} of {facts.quorum} updates possible")
    if facts.open_assignments == 0:
        return Aggregate()
    if facts.deadline_at is not None and now >= facts.deadline_at:
        if facts.accepted >= facts.quorum:
            return Aggregate()
        return Fail(f"deadline passed with {facts.accepted} of {facts.quorum} updates")
    return Wait(f"{facts.accepted} of {possible} updates received", until=facts.deadline_at)


def _next_of_claimed(facts: RoundFacts, now: datetime, step: Step) -> Step:
    if facts.claimed_until is not None and now < facts.claimed_until:
        return Wait("a coordinator is at work", until=facts.claimed_until)
    return step


@dataclass(frozen=True)
class RunFacts:
    """What one needs to know of a run whose round has just ended, to say whether another opens."""

    state: RunState
    rounds: int
    last_number: int
    failed_in_a_row: int
    stop_after_round: bool


@dataclass(frozen=True)
class OpenRound:
    """Open the round of this number."""

    number: int


@dataclass(frozen=True)
class EndRun:
    """The run ends in this state for this reason."""

    state: RunState
    reason: str = ""


@dataclass(frozen=True)
class StayPaused:
    """The run is paused; the next round opens when it resumes."""


def after_round(facts: RunFacts) -> OpenRound | EndRun | StayPaused:
    """Say what follows a round's end."""
    if facts.stop_after_round:
        return EndRun(RunState.STOPPED, f"stopped after round {facts.last_number}")
    if facts.failed_in_a_row >= MAX_FAILED_ROUNDS_IN_A_ROW:
        return EndRun(RunState.FAILED, f"{facts.failed_in_a_row} rounds in a row failed")
    if facts.last_number >= facts.rounds:
        return EndRun(RunState.COMPLETED)
    if facts.state is RunState.PAUSED:
        return StayPaused()
    return OpenRound(facts.last_number + 1)
