"""What the server says of its rows: one builder for each payload, true to the rows, and silent on what is private."""

import pytest

from edge.protocol.server import decode_payload, encode_payload
from fl import devices
from fl.assignments import give_up
from fl.exceptions import UpdateRefused
from fl.models import Device, Run, Update
from fl.payloads import (
    assignment_message,
    assignment_progress,
    deadline_extended,
    device_status,
    model_completed,
    round_completed,
    run_status,
    spreads,
)
from fl.rounds import newest_model
from fl.seeds import training_seed
from tests.builders import NOW, at, current_round, fleet, participant, started_run, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def world():
    """A run after its first round of three devices, of which one was rejected and one given up; the second waits."""
    senders = fleet(3)
    run = started_run(
        cohort_size=3, quorum=1, strategy="fedprox", strategy_config={"mu": 0.5}, max_update_norm=9.0, rounds=3
    )
    step(run, at(1))
    senders[0].send()
    with pytest.raises(UpdateRefused):
        senders[1].send(manifest=b"{")
    give_up(device=senders[2].device, assignment_id=senders[2].assignment().pk, reason="no data", now=at(2))
    devices.disconnected(connection_id=senders[2].connection_id, now=at(2))
    step(run, at(3))
    senders[2].connect(at(3))
    return Run.objects.get(pk=run.pk), senders


def test_the_status_of_a_run_tells_its_newest_round(world):
    run, _ = world

    waiting = run_status(run)
    step(run, at(4))
    training = run_status(Run.objects.get(pk=run.pk))

    assert (waiting.round, waiting.round_state, waiting.deadline_at) == (2, "pending", None)
    assert (training.round_state, training.selected, training.updates_received) == ("training", 3, 0)
    assert training.deadline_at == at(64)
    assert (training.model_version, training.best_version, training.started_at) == (1, 1, NOW)


def test_what_was_lost_is_counted(world):
    run, _ = world
    run.round_set.filter(number=2).delete()

    status = run_status(run)

    assert (status.selected, status.updates_received, status.updates_lost) == (3, 1, 2)


def test_a_run_tells_what_its_open_round_waits_for_unless_it_has_a_reason_of_its_own(world):
    run, _ = world
    run.round_set.filter(number=2).update(reason="waiting for devices")
    assert run_status(run).reason == "waiting for devices"

    run.reason = "paused by ada"

    assert run_status(run).reason == "paused by ada"


def test_a_published_version_tells_how_it_came_about(world):
    run, _ = world

    told = model_completed(newest_model(run))

    assert (told.updates_planned, told.updates_received, told.updates_rejected) == (3, 1, 1)
    assert (told.version, told.round, told.is_best, told.phase) == (1, 1, True, "completed")
    assert told.digest == newest_model(run).digest
    assert told.weights_url == f"/api/v1/weights/{told.digest}/"
    assert told.task_digest == run.task_digest
    assert told.duration_seconds is not None


def test_the_initial_version_has_no_round_to_tell_of(world):
    run, _ = world

    told = model_completed(run.models.get(version=0))

    assert (told.round, told.updates_planned, told.updates_received, told.duration_seconds) == (0, 0, 0, None)
    assert told.is_best is False


def test_the_end_of_a_round_names_no_device(world):
    run, senders = world

    told = round_completed(run.round_set.get(number=1), newest_model(run), ["accepted", "rejected", "failed"])

    assert (told.phase, told.progress, told.updates_received) == ("round_completed", 1.0, 1)
    assert (told.device_id, told.device_name, told.assignment_id) == (None, None, None)
    assert told.device_metrics == spreads(run.round_set.get(number=1).device_metrics)
    assert not [one for one in senders if one.device.name in encode_payload(told).decode()]


def test_a_round_that_has_not_ended_has_no_end_to_tell(world):
    run, _ = world

    with pytest.raises(ValueError, match="has not ended"):
        round_completed(current_round(run), newest_model(run), [])


def test_an_assignment_says_all_that_training_needs(world):
    run, senders = world
    step(run, at(4))
    assignment = senders[1].assignment()

    told = assignment_message(assignment)

    assert told.training.seed == training_seed(run.seed, 2, assignment.cohort_index)
    assert (told.training.proximal_mu, told.max_update_norm, told.deadline_at) == (0.5, 9.0, at(64))
    assert (told.base_version, told.base_digest) == (1, newest_model(run).digest)
    assert told.update_url == f"/api/v1/assignments/{assignment.pk}/update/"


def progress_of(sender):
    assignment = sender.assignment()
    return assignment_progress(assignment, Update.objects.filter(assignment=assignment).first())


def test_the_progress_of_a_device_tells_its_update_and_its_reason(world):
    _, senders = world

    accepted, rejected, failed = (progress_of(sender) for sender in senders)

    assert (accepted.phase, accepted.progress) == ("accepted", 1.0)
    assert accepted.num_examples > 0
    assert set(accepted.metrics) >= {"loss"}
    assert (rejected.phase, failed.phase, failed.reason) == ("rejected", "failed", "no data")
    assert failed.num_examples is None


def test_a_device_tells_state_presence_and_activity_each_for_itself(world):
    run, senders = world
    step(run, at(4))

    busy = device_status(Device.objects.get(pk=senders[0].device.pk))
    assert (busy.state, busy.presence, busy.activity) == ("active", "online", "assigned")
    assert (busy.run_id, busy.round, busy.tasks, busy.num_examples) == (run.pk, 2, ["linear"], {"linear": 40})

    devices.suspend(device=senders[0].device, reason="a test", now=at(5), by=None)
    suspended = device_status(Device.objects.get(pk=senders[0].device.pk))
    assert (suspended.state, suspended.activity, suspended.run_id) == ("suspended", "idle", None)

    new = device_status(participant(auto_approve=False).device)
    assert (new.state, new.presence, new.last_heard_at) == ("pending", "offline", None)


def test_every_payload_reads_back_as_it_was_said(world):
    run, senders = world
    step(run, at(4))
    said = [
        run_status(run),
        device_status(senders[0].device),
        assignment_message(senders[0].assignment()),
        progress_of(senders[0]),
        model_completed(newest_model(run)),
        round_completed(run.round_set.get(number=1), newest_model(run), ["accepted", "rejected", "failed"]),
        deadline_extended(run.round_set.get(number=2), 60.0, "by ada"),
    ]

    for payload in said:
        assert decode_payload(payload.event, encode_payload(payload)) == payload
