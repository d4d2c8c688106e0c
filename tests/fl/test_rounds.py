"""Moves of runs, rounds and assignments: each happens once, and who comes second is told that the race is lost."""

import pytest

from fl import events
from fl.coordination import advance
from fl.exceptions import LostRace, NotFound
from fl.lifecycle import AssignmentState, RoundState, RunState
from fl.models import Event, Round, Run
from fl.rounds import close_assignments, end_assignment, end_round, lock_run, move_run, open_round_of, settle_run
from tests.builders import NOW, at, current_round, fleet, started_run, step

pytestmark = pytest.mark.django_db


def test_a_run_that_is_not_there_cannot_be_locked():
    with pytest.raises(NotFound, match="no run 99"), events.transaction():
        lock_run(99)


def test_a_run_moves_once():
    run = started_run()
    stale = Run.objects.get(pk=run.pk)

    with events.transaction():
        move_run(run, RunState.STOPPED, now=at(1))
    with pytest.raises(LostRace), events.transaction():
        move_run(stale, RunState.PAUSED, now=at(2))

    run.refresh_from_db()
    assert (run.state, run.ended_at) == ("stopped", at(1))


def test_a_round_ends_once():
    run = started_run()
    fleet(2)
    step(run)
    round_, stale = current_round(run), current_round(run)

    with events.transaction():
        end_round(round_, RoundState.FAILED, reason="first", now=at(1))
    with pytest.raises(LostRace), events.transaction():
        end_round(stale, RoundState.STOPPED, reason="second", now=at(2))

    assert Round.objects.values_list("state", "reason", "ended_at").get() == ("failed", "first", at(1))


def test_an_assignment_ends_once():
    device, _ = fleet(2)
    run = started_run()
    step(run)
    assignment, stale = device.assignment(), device.assignment()

    with events.transaction():
        end_assignment(assignment, AssignmentState.FAILED, reason="first", now=at(1))
    with pytest.raises(LostRace), events.transaction():
        end_assignment(stale, AssignmentState.CANCELLED, reason="second", now=at(2))

    assert (device.assignment().state, device.assignment().reason) == ("failed", "first")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (AssignmentState.EXPIRED, True),
        (AssignmentState.CANCELLED, True),
        (AssignmentState.FAILED, False),
        (AssignmentState.REJECTED, False),
        (AssignmentState.ACCEPTED, False),
    ],
)
def test_a_device_is_told_to_stop_where_it_could_still_be_at_work(state, told):
    device, _ = fleet(2)
    step(started_run())

    with events.transaction():
        end_assignment(device.assignment(), state, reason="a test", now=NOW)

    newest = Event.objects.filter(stream=device.device.stream).latest("seq")
    assert (newest.event == "cancel") is told


def test_closing_leaves_alone_what_has_ended():
    sender, idle = fleet(2)
    run = started_run()
    step(run)
    sender.send()

    with events.transaction():
        close_assignments(current_round(run), AssignmentState.EXPIRED, reason="late", now=at(1))

    assert (sender.assignment().state, idle.assignment().state) == ("accepted", "expired")


def test_a_failed_round_is_told_to_those_who_follow_the_run_without_naming_a_device():
    run = started_run()
    fleet(2)
    step(run)

    advance(current_round(run).pk, lambda: at(60))

    notice = Event.objects.get(stream=run.stream, event="error_notification")
    assert '"round_failed"' in notice.data
    assert "deadline passed with 0 of 2 updates" in notice.data
    assert '"device_id":null' in notice.data


def test_settling_again_opens_no_second_round():
    run = started_run()

    with events.transaction():
        settle_run(lock_run(run.pk), now=at(1))

    assert Round.objects.count() == 1
    assert open_round_of(run).number == 1
