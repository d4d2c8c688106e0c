"""What happens next, as a table of facts; the tables of moves, held against what the database allows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.positions import ENDED_RUN_STATES
from fl.lifecycle import (
    ASSIGNMENT_MOVES,
    DEVICE_MOVES,
    MAX_FAILED_ROUNDS_IN_A_ROW,
    OPEN_ASSIGNMENTS,
    OPEN_ROUNDS,
    OPEN_RUNS,
    ROUND_MOVES,
    RUN_MOVES,
    Aggregate,
    AssignmentState,
    DeviceState,
    EndRun,
    Evaluate,
    Fail,
    OpenRound,
    Over,
    RoundFacts,
    RoundState,
    RunFacts,
    RunState,
    Select,
    StayPaused,
    Wait,
    after_round,
    next_step,
    run_actions,
)
from fl.models import Assignment, Device, Round, Run
from tests.builders import NOW, at

PENDING = RoundFacts(
    state=RoundState.PENDING,
    run_state=RunState.RUNNING,
    opened_at=NOW,
    cohort_size=4,
    quorum=2,
    cohort_wait_seconds=30,
)
TRAINING = replace(PENDING, state=RoundState.TRAINING, deadline_at=at(60))
AGGREGATING = replace(PENDING, state=RoundState.AGGREGATING, accepted=4, claimed_until=at(10))
EVALUATING = replace(AGGREGATING, state=RoundState.EVALUATING)

STEPS = {
    "a full cohort is selected at once": (replace(PENDING, eligible=4), 0, Select(4)),
    "of more devices than needed only a cohort is selected": (replace(PENDING, eligible=9), 0, Select(4)),
    "a round waits for a full cohort while there is patience": (
        replace(PENDING, eligible=3),
        29,
        Wait("waiting for devices: 3 of 4 ready", until=at(30)),
    ),
    "patience ends with those who are there, if they make a quorum": (replace(PENDING, eligible=3), 30, Select(3)),
    "a quorum alone is enough after patience": (replace(PENDING, eligible=2), 31, Select(2)),
    "below the quorum a round waits on and says for how many": (
        replace(PENDING, eligible=1),
        31,
        Wait("waiting for devices: 1 of 2 ready"),
    ),
    "without patience a quorum is enough at once": (
        replace(PENDING, eligible=2, cohort_wait_seconds=0),
        0,
        Select(2),
    ),
    "a paused run selects nobody": (
        replace(PENDING, eligible=4, run_state=RunState.PAUSED),
        0,
        Wait("the run is paused"),
    ),
    "training waits for open assignments until the deadline": (
        replace(TRAINING, open_assignments=1, accepted=3),
        59,
        Wait("3 of 4 updates received", until=at(60)),
    ),
    "with all updates in, a round aggregates at once": (replace(TRAINING, accepted=4), 1, Aggregate()),
    "with a quorum and nobody left to wait for, a round aggregates at once": (
        replace(TRAINING, accepted=2),
        1,
        Aggregate(),
    ),
    "at the deadline a quorum aggregates": (
        replace(TRAINING, open_assignments=2, accepted=2),
        60,
        Aggregate(),
    ),
    "at the deadline without a quorum a round fails": (
        replace(TRAINING, open_assignments=3, accepted=1),
        60,
        Fail("deadline passed with 1 of 2 updates"),
    ),
    "a round fails at once when its quorum can no longer be met": (
        replace(TRAINING, open_assignments=1, accepted=0),
        1,
        Fail("quorum can no longer be met: 1 of 2 updates possible"),
    ),
    "a round whose assignments are all lost fails at once": (
        TRAINING,
        1,
        Fail("quorum can no longer be met: 0 of 2 updates possible"),
    ),
    "the open round of a paused run is closed like any other": (
        replace(TRAINING, accepted=4, run_state=RunState.PAUSED),
        1,
        Aggregate(),
    ),
    "a claimed aggregation is left alone": (AGGREGATING, 9, Wait("a coordinator is at work", until=at(10))),
    "an aggregation whose claim ran out is taken over": (AGGREGATING, 10, Aggregate()),
    "an aggregation that nobody claims is taken over": (replace(AGGREGATING, claimed_until=None), 0, Aggregate()),
    "a claimed evaluation is left alone": (EVALUATING, 9, Wait("a coordinator is at work", until=at(10))),
    "an evaluation whose claim ran out is taken over": (EVALUATING, 10, Evaluate()),
    "a completed round is over": (replace(PENDING, state=RoundState.COMPLETED, eligible=4), 0, Over()),
    "a failed round is over": (replace(TRAINING, state=RoundState.FAILED, accepted=4), 99, Over()),
    "a stopped round is over": (replace(AGGREGATING, state=RoundState.STOPPED), 99, Over()),
}


@pytest.mark.parametrize(("facts", "seconds", "step"), STEPS.values(), ids=STEPS.keys())
def test_the_facts_call_for_one_step(facts, seconds, step):
    assert next_step(facts, at(seconds)) == step


RUN = RunFacts(state=RunState.RUNNING, rounds=5, last_number=2, failed_in_a_row=0, stop_after_round=False)

ENDINGS = {
    "the first round opens when there was none": (replace(RUN, last_number=0), OpenRound(1)),
    "another round opens": (RUN, OpenRound(3)),
    "a failed round counts, and the next opens": (replace(RUN, failed_in_a_row=2), OpenRound(3)),
    "three failed rounds in a row fail the run": (
        replace(RUN, last_number=3, failed_in_a_row=3),
        EndRun(RunState.FAILED, "3 rounds in a row failed"),
    ),
    "three failed rounds fail the run even if they were its last": (
        replace(RUN, last_number=5, failed_in_a_row=3),
        EndRun(RunState.FAILED, "3 rounds in a row failed"),
    ),
    "the last round completes the run": (replace(RUN, last_number=5), EndRun(RunState.COMPLETED)),
    "the last round completes a paused run too": (
        replace(RUN, last_number=5, state=RunState.PAUSED),
        EndRun(RunState.COMPLETED),
    ),
    "a paused run opens no round": (replace(RUN, state=RunState.PAUSED), StayPaused()),
    "a run that was told so stops after its round": (
        replace(RUN, stop_after_round=True),
        EndRun(RunState.STOPPED, "stopped after round 2"),
    ),
    "a paused run that was told so stops after its round": (
        replace(RUN, stop_after_round=True, state=RunState.PAUSED),
        EndRun(RunState.STOPPED, "stopped after round 2"),
    ),
}


@pytest.mark.parametrize(("facts", "follows"), ENDINGS.values(), ids=ENDINGS.keys())
def test_one_thing_follows_the_end_of_a_round(facts, follows):
    assert after_round(facts) == follows


def test_three_is_how_many_failed_rounds_end_a_run():
    assert MAX_FAILED_ROUNDS_IN_A_ROW == 3


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

seconds = st.integers(0, 120)


@st.composite
def facts_the_database_allows(draw):
    """Draw facts as rows can hold them: a quorum within the cohort, a deadline once begun."""
    cohort_size = draw(st.integers(1, 6))
    state = draw(st.sampled_from(RoundState))
    accepted = draw(st.integers(0, cohort_size))
    return RoundFacts(
        state=state,
        run_state=draw(st.sampled_from([RunState.RUNNING, RunState.PAUSED])),
        opened_at=NOW,
        cohort_size=cohort_size,
        quorum=draw(st.integers(1, cohort_size)),
        cohort_wait_seconds=draw(seconds),
        eligible=draw(st.integers(0, 9)),
        open_assignments=draw(st.integers(0, cohort_size - accepted)),
        accepted=accepted,
        deadline_at=None if state is RoundState.PENDING else at(draw(st.integers(1, 120))),
        claimed_until=draw(st.none() | seconds.map(at)),
    )


@given(facts_the_database_allows(), seconds)
def test_a_round_never_waits_for_ever_but_for_something_from_outside(facts, now):
    step = next_step(facts, at(now))

    if isinstance(step, Wait) and step.until is None:
        # Only a person who resumes the run, or a device that connects, can change this.
        assert facts.state is RoundState.PENDING
        assert facts.run_state is RunState.PAUSED or facts.eligible < facts.quorum
    elif isinstance(step, Wait):
        # The clock alone brings the next step: at that moment the same facts no longer say "wait until then".
        assert step.until > at(now)
        assert next_step(facts, step.until) != step


@given(facts_the_database_allows(), seconds)
def test_the_quorum_is_never_undercut(facts, now):
    step = next_step(facts, at(now))

    if isinstance(step, Select):
        assert facts.quorum <= step.size <= min(facts.cohort_size, facts.eligible)
    if isinstance(step, Aggregate) and facts.state is RoundState.TRAINING:
        assert facts.accepted >= facts.quorum


@given(facts_the_database_allows(), seconds)
def test_a_round_fails_only_when_its_quorum_is_out_of_reach(facts, now):
    step = next_step(facts, at(now))

    if isinstance(step, Fail):
        assert facts.accepted < facts.quorum
        assert at(now) >= facts.deadline_at or facts.accepted + facts.open_assignments < facts.quorum


@given(facts_the_database_allows(), seconds)
def test_every_step_is_one_that_the_state_can_take(facts, now):
    leads_to = {
        Select: RoundState.TRAINING,
        Aggregate: RoundState.AGGREGATING,
        Evaluate: RoundState.EVALUATING,
        Fail: RoundState.FAILED,
    }

    step = next_step(facts, at(now))

    if type(step) in leads_to:
        wanted = leads_to[type(step)]
        assert wanted is facts.state or wanted in ROUND_MOVES[facts.state]
    assert isinstance(step, Over) == (facts.state not in OPEN_ROUNDS)


# ── tables of moves ───────────────────────────────────────────────────────────────────────────────────────────────────

TABLES = {
    "run": (RUN_MOVES, RunState, Run, OPEN_RUNS),
    "round": (ROUND_MOVES, RoundState, Round, OPEN_ROUNDS),
    "assignment": (ASSIGNMENT_MOVES, AssignmentState, Assignment, OPEN_ASSIGNMENTS),
    "device": (DEVICE_MOVES, DeviceState, Device, frozenset(DeviceState) - {DeviceState.REVOKED}),
}


@pytest.mark.parametrize(("moves", "states", "model", "open_states"), TABLES.values(), ids=TABLES.keys())
def test_a_table_of_moves_knows_the_states_that_the_model_knows(moves, states, model, open_states):
    choices = {value for value, _ in model._meta.get_field("state").choices}

    assert set(moves) == set(states)
    assert choices == {state.value for state in states}
    assert all(target in moves for targets in moves.values() for target in targets)


@pytest.mark.parametrize(("moves", "states", "model", "open_states"), TABLES.values(), ids=TABLES.keys())
def test_every_state_is_reached_from_the_first_one(moves, states, model, open_states):
    reached, todo = set(), [states(model._meta.get_field("state").default)]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += moves[state]

    assert reached == set(states)


@pytest.mark.parametrize(("moves", "states", "model", "open_states"), TABLES.values(), ids=TABLES.keys())
def test_what_is_open_can_end_and_what_has_ended_does_not_open_again(moves, states, model, open_states):
    for state in states:
        if state in open_states:
            assert moves[state] - open_states, f"{state} leads to no end"
        else:
            assert not moves[state] & open_states, f"{state} leads back"


ACTIONS = {
    RunState.PENDING: ["start", "stop_now"],
    RunState.RUNNING: ["pause", "stop_after_round", "stop_now"],
    RunState.PAUSED: ["resume", "stop_after_round", "stop_now"],
    RunState.COMPLETED: [],
    RunState.FAILED: [],
    RunState.STOPPED: [],
}


@pytest.mark.parametrize("state", RunState)
def test_a_run_offers_the_actions_that_its_moves_allow(state):
    becomes = {
        "start": RunState.RUNNING,
        "resume": RunState.RUNNING,
        "pause": RunState.PAUSED,
        "stop_now": RunState.STOPPED,
        "stop_after_round": RunState.STOPPED,
    }

    assert run_actions(state) == ACTIONS[state]
    assert {becomes[action] for action in run_actions(state)} <= RUN_MOVES[state]


@pytest.mark.parametrize("round_state", [None, *RoundState])
@pytest.mark.parametrize("state", RunState)
def test_a_deadline_can_be_extended_while_a_round_of_an_open_run_trains_and_never_else(state, round_state):
    actions = run_actions(state, round_state)

    can_be = state in (RunState.RUNNING, RunState.PAUSED) and round_state is RoundState.TRAINING
    assert ("extend_deadline" in actions) == can_be
    assert [action for action in actions if action != "extend_deadline"] == ACTIONS[state]


def test_clients_forget_runs_in_the_states_that_are_never_left():
    assert {state for state in RunState if not RUN_MOVES[state]} == ENDED_RUN_STATES == set(RunState) - OPEN_RUNS
