"""Snapshots: what is true now, for one who may see it, at one moment, and without keeping writers waiting."""

import threading
from dataclasses import replace

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from edge.protocol.server import Position, encode_payload
from fl import events, runs
from fl.models import Device, Event, Run, Stream
from fl.payloads import device_status, model_completed, run_status
from fl.roles import Role
from fl.rounds import newest_model
from fl.snapshots import consistent_read, positions_for, snapshot_for
from fl.visibility import ANYONE, Principal, principal_of_device
from tests.builders import NOW, PLAN, at, current_round, fleet, started_run, step
from tests.fl.threads import Call

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)


@pytest.fixture
def at_work():
    """Two runs: one in its second round, with one update of two, and one that waits."""
    senders = fleet(3)
    run = started_run()
    step(run)
    for sender in senders:
        if sender.device.assignments.exists():
            sender.send()
    step(run)
    step(run, at(1))
    selected = [sender for sender in senders if sender.device.assignments.filter(state="assigned").exists()]
    selected[0].send(now=at(2))
    return run, started_run(name="waits", cohort_size=3, public=True), senders, selected


def test_a_viewer_sees_runs_devices_progress_and_models_as_their_events_tell_them(at_work):
    run, waiting, _, selected = at_work

    snapshot = snapshot_for(VIEWER)

    current = [Run.objects.get(pk=one.pk) for one in (waiting, run)]
    assert snapshot.runs == [run_status(one) for one in current]
    assert snapshot.models == [model_completed(newest_model(one)) for one in current]
    assert snapshot.devices == [device_status(device) for device in Device.objects.order_by("name")]
    (progress,) = snapshot.progress
    assert (progress.device_id, progress.phase) == (selected[1].device.pk, "assigned")
    assert snapshot.assignment is None
    status = snapshot.runs[1]
    assert (status.round, status.round_state, status.updates_received, status.selected) == (2, "training", 1, 2)


def test_a_device_sees_its_assignment_and_the_runs_of_its_tasks_and_no_other_device(at_work):
    run, waiting, senders, selected = at_work
    mine = selected[1]

    snapshot = snapshot_for(principal_of_device(mine.device))

    assert snapshot.assignment.assignment_id == mine.assignment().pk
    assert snapshot.assignment.base_digest == newest_model(run).digest
    assert {status.run_id for status in snapshot.runs} == {run.pk, waiting.pk}
    assert {model.digest for model in snapshot.models} == {newest_model(one).digest for one in (run, waiting)}
    assert (snapshot.devices, snapshot.progress) == ([], [])
    text = encode_payload(snapshot).decode()
    assert not [one.device.name for one in senders if f'"{one.device.name}"' in text]


def test_a_device_with_nothing_to_do_has_no_assignment(at_work):
    _, _, _, selected = at_work

    assert snapshot_for(principal_of_device(selected[0].device)).assignment is None


def test_a_device_of_other_tasks_sees_public_runs_alone(at_work):
    _, waiting, senders, _ = at_work
    stranger = Principal(device_id=senders[0].device.pk, tasks=frozenset({"digits"}))

    assert [status.run_id for status in snapshot_for(stranger).runs] == [waiting.pk]


def test_everybody_sees_public_runs_alone(at_work):
    _, waiting, _, _ = at_work

    snapshot = snapshot_for(ANYONE)

    assert [status.run_id for status in snapshot.runs] == [waiting.pk]
    assert (snapshot.devices, snapshot.progress, snapshot.assignment) == ([], [], None)
    assert list(snapshot.streams) == [waiting.stream]


def test_positions_are_the_heads_of_the_streams_that_one_sees(at_work):
    run, *_ = at_work

    positions = positions_for(VIEWER)

    stream = Stream.objects.get(pk=run.stream)
    assert positions[run.stream] == Position(epoch=stream.epoch, seq=stream.head)
    assert not [name for name in positions if name.startswith("device:")]
    assert snapshot_for(VIEWER).streams == positions


def test_a_run_without_a_model_or_a_round_is_there(at_work):
    new = runs.create_run(plan=replace(PLAN, name="new"), created_by=None, now=NOW)

    snapshot = snapshot_for(VIEWER)

    assert snapshot.runs[0] == run_status(new)
    assert (snapshot.runs[0].round, snapshot.runs[0].model_version) == (None, None)
    assert len(snapshot.models) == 2


def queries_of(principal):
    with CaptureQueriesContext(connection) as queries:
        snapshot_for(principal)
    return len(queries)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.NONE])
def test_the_number_of_queries_does_not_grow_with_runs_and_devices(at_work, role):
    before = queries_of(Principal(role=role))

    fleet(4)
    for number in range(4):
        run = started_run(name=f"more {number}", cohort_size=1, public=True)
        step(run)

    assert queries_of(Principal(role=role)) == before


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_belongs_to_its_positions_though_others_write_meanwhile():
    run = started_run()
    seen, written = threading.Event(), threading.Event()

    def write_between(execute, sql, parameters, many, context):
        result = execute(sql, parameters, many, context)
        if "fl_run" in sql and not seen.is_set():
            seen.set()
            assert written.wait(60)
        return result

    def read():
        with connection.execute_wrapper(write_between):
            return snapshot_for(VIEWER)

    before = positions_for(VIEWER)[run.stream].seq
    reader = Call(read)
    assert seen.wait(60)
    fleet(2)
    step(run)  # the reader has begun, and must not keep this waiting
    written.set()
    snapshot = reader.result()

    assert snapshot.streams[run.stream].seq == before
    (status,) = snapshot.runs
    assert (status.round_state, status.selected) == ("pending", 0)
    assert snapshot.devices == []
    last = Event.objects.filter(stream=run.stream, seq__lte=before, event="fl_status_update").latest("seq")
    assert msgspec.json.decode(last.data)["round_state"] == status.round_state
    assert current_round(run).state == "training"


@pytest.mark.django_db(transaction=True)
def test_reading_waits_for_no_writer():
    started_run()

    with events.transaction():
        Run.objects.update(name="being renamed")
        assert [status.run_name for status in Call(lambda: snapshot_for(VIEWER)).result().runs] == ["a run"]


@pytest.mark.django_db(transaction=True)
def test_after_a_consistent_read_transactions_take_the_write_lock_again():
    mode = getattr(connection, "transaction_mode", None)

    with pytest.raises(ZeroDivisionError), consistent_read():
        _ = 1 / 0

    assert getattr(connection, "transaction_mode", None) == mode
    with CaptureQueriesContext(connection) as queries, events.transaction():
        events.open_stream("x")
    if connection.vendor == "sqlite":
        assert queries[0]["sql"] == "BEGIN IMMEDIATE"
