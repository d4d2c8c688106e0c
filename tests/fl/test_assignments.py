"""A device at work: how far it is, written sparingly and told at once; and that it gives up."""

import msgspec
import pytest

from edge.protocol.client import Progress
from fl import signals
from fl.assignments import give_up, open_assignment_of, report_progress
from fl.exceptions import Conflict, Invalid, NotFound
from fl.models import Assignment, Event
from tests.builders import NOW, at, current_round, fleet, started_run, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def training():
    devices = fleet(2)
    run = started_run()
    step(run)
    return run, devices


@pytest.fixture
def ticks():
    told = []

    def hear(work, **_):
        told.append(work)

    signals.device_at_work.connect(hear)
    yield told
    signals.device_at_work.disconnect(hear)


def progress_of(one, share, state="training", **changes):
    values = {"local_epoch": 1, "local_epochs": 2, "loss": 0.5} | changes
    return Progress(assignment_id=one.assignment().pk, state=state, progress=share, **values)


def report(one, share, now=NOW, **changes):
    report_progress(device_id=one.device.pk, progress=progress_of(one, share, **changes), now=now)


def phases(one):
    rows = Event.objects.filter(stream="system", event="training_progress").order_by("seq")
    told = [msgspec.json.decode(row.data) for row in rows]
    return [payload["phase"] for payload in told if payload["device_id"] == one.device.pk]


# ── progress ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_progress_changes_the_state_and_is_kept_and_told(training, ticks):
    run, (one, _) = training

    report(one, 0.1, at(1))

    row = one.assignment()
    assert (row.state, row.progress, row.loss, row.progress_at) == ("training", 0.1, 0.5, at(1))
    assert phases(one) == ["assigned", "training"]
    (work,) = ticks
    assert (work.run_id, work.round, work.timestamp) == (run.pk, 1, at(1))
    assert (work.tick.assignment_id, work.tick.device_name) == (row.pk, one.device.name)
    assert (work.tick.progress, work.tick.local_epoch, work.tick.phase) == (0.1, 1, "training")


def test_further_progress_is_ticked_at_once_and_written_every_few_seconds(training, ticks, settings):
    settings.QFLARE_PROGRESS_SECONDS = 5
    _, (one, _) = training
    written = []

    for second in range(1, 13):
        report(one, second / 20, at(second))
        written.append(one.assignment().progress)

    assert written == [0.05] * 5 + [0.3] * 5 + [0.55] * 2
    assert len(ticks) == 12
    assert phases(one) == ["assigned", "training"]


def test_progress_between_writes_costs_one_query(training, django_assert_num_queries):
    _, (one, _) = training
    report(one, 0.1, at(1))
    progress = progress_of(one, 0.2)

    with django_assert_num_queries(1):
        report_progress(device_id=one.device.pk, progress=progress, now=at(2))


def test_a_new_state_is_written_and_told_whatever_the_time(training):
    _, (one, _) = training

    report(one, 0.9, at(1))
    report(one, 1.0, at(1.1), state="uploading")
    report(one, 0.0, at(1.2), state="training")

    assert phases(one) == ["assigned", "training", "uploading", "training"]
    assert one.assignment().progress == 0.0


@pytest.mark.parametrize(("share", "state"), [(-0.1, "training"), (1.1, "training"), (0.5, "accepted"), (0.5, "idle")])
def test_progress_that_cannot_be_is_refused(training, ticks, share, state):
    _, (one, _) = training

    with pytest.raises(Invalid) as refusal:
        report(one, share, state=state)

    assert refusal.value.field == "progress"
    assert one.assignment().state == "assigned"
    assert ticks == []


def test_progress_of_another_devices_assignment_says_nothing(training, ticks):
    _, (one, other) = training

    report_progress(device_id=other.device.pk, progress=progress_of(one, 0.5), now=NOW)

    assert one.assignment().state == "assigned"
    assert ticks == []


def test_progress_of_an_assignment_that_has_ended_says_nothing(training, ticks):
    _, (one, _) = training
    one.send()
    before = Assignment.objects.values().get(device=one.device)
    ticks.clear()

    report(one, 0.5, at(9))

    assert Assignment.objects.values().get(device=one.device) == before
    assert ticks == []


def test_a_loss_that_is_none_is_none(training):
    _, (one, _) = training

    report(one, 0.5, loss=None)

    assert one.assignment().loss is None


# ── what there is to do ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_has_one_thing_to_do_until_it_is_done(training):
    _, (one, _) = training
    assert open_assignment_of(one.device.pk) == one.assignment()

    one.send()

    assert open_assignment_of(one.device.pk) is None


# ── giving up ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_that_gives_up_fails_its_assignment_with_its_reason_and_people_are_told(training):
    run, (one, _) = training

    ended = give_up(device=one.device, assignment_id=one.assignment().pk, reason="the loss is NaN", now=at(1))

    assert (ended.state, ended.reason, ended.ended_at) == ("failed", "the loss is NaN", at(1))
    assert one.assignment().state == "failed"
    notice = msgspec.json.decode(Event.objects.get(stream="system", event="error_notification").data)
    assert (notice["code"], notice["device_id"], notice["detail"]) == (
        "assignment_failed",
        one.device.pk,
        "the loss is NaN",
    )
    status = msgspec.json.decode(Event.objects.filter(stream=run.stream).latest("seq").data)
    assert status["updates_lost"] == 1
    assert not Event.objects.filter(stream=one.device.stream, event="cancel").exists()


def test_a_round_goes_on_without_a_device_that_gave_up():
    one, *others = fleet(3)
    run = started_run(cohort_size=3, quorum=2, rounds=1)
    step(run)

    give_up(device=one.device, assignment_id=one.assignment().pk, reason="no data", now=at(1))
    for other in others:
        other.send()
    step(run)

    run.refresh_from_db()
    assert run.state == "completed"


def test_giving_up_again_answers_the_same_and_tells_nothing_new(training):
    _, (one, _) = training
    first = give_up(device=one.device, assignment_id=one.assignment().pk, reason="no data", now=at(1))
    before = Event.objects.count()

    again = give_up(device=one.device, assignment_id=one.assignment().pk, reason="other words", now=at(2))

    assert (again, again.reason) == (first, "no data")
    assert Event.objects.count() == before


def test_what_has_ended_otherwise_cannot_be_given_up(training):
    _, (one, _) = training
    one.send()

    with pytest.raises(Conflict, match="accepted already"):
        give_up(device=one.device, assignment_id=one.assignment().pk, reason="no data", now=at(1))

    assert one.assignment().state == "accepted"


def test_another_devices_assignment_is_not_found(training):
    _, (one, other) = training

    with pytest.raises(NotFound):
        give_up(device=other.device, assignment_id=one.assignment().pk, reason="no data", now=at(1))
    with pytest.raises(NotFound):
        give_up(device=one.device, assignment_id=10**9, reason="no data", now=at(1))


def test_a_long_reason_is_cut_to_its_column(training):
    run, (one, _) = training

    give_up(device=one.device, assignment_id=one.assignment().pk, reason="r" * 2000, now=at(1))

    assert one.assignment().reason == "r" * 500
    assert current_round(run).state == "training"
