"""The thread that drives all runs: woken by what happens, fair between runs, and held up by none of them."""

import threading
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone

from fl import devices, runs, signals
from fl.coordinator import Coordinator, drive
from fl.models import Assignment, Event, PresenceLease, Round, Run
from fl.rounds import newest_model
from tests.builders import PLAN, fleet, participant
from tests.fl.threads import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def coordinator(settings):
    """Coordinators that run until the test ends; their clock never strikes, so that only waking drives them."""
    settings.QFLARE_CLOCK_SECONDS = 3600
    started = []

    def start():
        thread = Coordinator()
        thread.start()
        started.append(thread)
        return thread

    yield start
    for thread in started:
        thread.stop()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def idle():
    """For `drive`: never stopping, and what it was told."""
    return threading.Event(), []


def create(**changes):
    now = timezone.now()
    run = runs.create_run(plan=replace(PLAN, **changes), created_by=None, now=now)
    return runs.start_run(run=run, now=now)


def answer(senders):
    """Send what each of the devices owes."""
    for sender in senders:
        if Assignment.objects.filter(device=sender.device, state="assigned").exists():
            sender.send(now=timezone.now())


def is_over(run):
    run.refresh_from_db()
    return run.ended_at is not None


def test_a_run_goes_from_start_to_end_by_waking_alone(coordinator):
    senders = fleet(2, now=timezone.now())
    coordinator()
    run = create(rounds=3)

    eventually(lambda: answer(senders) or is_over(run))

    assert (run.state, newest_model(run).version) == ("completed", 3)


def test_what_an_earlier_process_left_undone_is_done_at_the_start(coordinator):
    run = create()

    coordinator()

    eventually(lambda: Round.objects.filter(run=run).exists())


def test_two_coordinators_do_everything_once(coordinator):
    senders = fleet(2, now=timezone.now())
    coordinator()
    coordinator()
    run = create(rounds=3)

    eventually(lambda: answer(senders) or is_over(run))

    assert run.state == "completed"
    assert list(run.models.values_list("version", flat=True)) == [0, 1, 2, 3]
    assert Assignment.objects.count() == 6
    published = Event.objects.filter(stream=run.stream, event="model_aggregation", data__contains='"completed"')
    assert published.count() == 4


def test_a_device_that_went_silent_is_told_to_be_offline(coordinator):
    (gone,) = fleet(1, now=timezone.now())
    PresenceLease.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

    coordinator()

    eventually(lambda: not PresenceLease.objects.exists())
    newest = Event.objects.filter(stream="system", event="device_status").latest("seq")
    assert msgspec.json.decode(newest.data)["presence"] == "offline"
    assert msgspec.json.decode(newest.data)["device_id"] == gone.device.pk


def test_a_run_that_is_broken_holds_up_no_other_and_is_told_once(coordinator):
    senders = fleet(2, now=timezone.now())
    broken = create(name="broken")
    thread = coordinator()
    eventually(lambda: Round.objects.filter(run=broken).exists())
    runs.pause_run(run=broken, now=timezone.now())
    Run.objects.filter(pk=broken.pk).update(strategy="gone")
    runs.resume_run(run=broken, now=timezone.now())

    healthy = create(name="healthy", rounds=2)
    eventually(lambda: answer(senders) or is_over(healthy))
    thread.wake()

    assert healthy.state == "completed"
    notices = Event.objects.filter(stream="system", event="error_notification")
    (notice,) = [msgspec.json.decode(row.data) for row in notices]
    assert notice["code"] == "coordinator_error"
    assert "there is no strategy 'gone'" in notice["detail"]


def test_a_coordinator_that_stopped_does_not_listen_any_more(coordinator):
    thread = coordinator()
    eventually(signals.work_available.has_listeners)
    thread.stop()
    thread.join(60)

    assert not signals.work_available.has_listeners()


def test_waiting_runs_are_served_least_recently_served_first(idle):
    stopping, told = idle
    senders = fleet(2, now=timezone.now())
    first, second, third = (create(name=name, rounds=2) for name in ("first", "second", "third"))
    served = []
    while drive(stopping, told.append):
        for assignment in Assignment.objects.filter(state="assigned", cohort_index=0).select_related("round__run"):
            served.append(assignment.round.run.name)
        answer(senders)

    assert told == []
    assert served == ["first", "second", "third", "first", "second", "third"]
    for run in (first, second, third):
        assert is_over(run)
        assert run.state == "completed"


def test_driving_stops_between_steps_when_told(idle):
    stopping, told = idle
    create()
    stopping.set()

    assert drive(stopping, told.append) is False
    assert not Round.objects.exists()


def test_a_look_at_a_round_that_trains_takes_three_queries(idle, django_assert_num_queries):
    stopping, told = idle
    fleet(2, now=timezone.now())
    create()
    while drive(stopping, told.append):
        pass

    with django_assert_num_queries(3):
        assert drive(stopping, told.append) is False

    assert told == []


def test_driving_with_nothing_to_do_says_so(idle):
    stopping, told = idle
    participant(now=timezone.now())

    assert drive(stopping, told.append) is False
    assert devices.expire_leases(now=timezone.now()) == 0
