"""Constraints hold in the database itself, also where Python's checks are passed by."""

from dataclasses import dataclass

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F, ProtectedError

from fl.models import (
    Assignment,
    Device,
    DeviceTask,
    EnrollmentToken,
    Event,
    GlobalModel,
    IdempotentRequest,
    PresenceLease,
    Round,
    Run,
    SignInCode,
    Stream,
    Update,
)
from tests.builders import NOW, at, fleet, person, started_run, step

pytestmark = pytest.mark.django_db


@dataclass
class World:
    """One row of everything: a run in its second round, with two devices at work and an update of the first round."""

    run: Run
    ended: Round
    open: Round
    devices: list


@pytest.fixture
def world():
    senders = fleet(2)
    run = started_run(rounds=3)
    step(run)
    for sender in senders:
        sender.send()
    step(run)
    step(run)
    ended, current = run.round_set.order_by("number")
    return World(run, ended, current, [sender.device for sender in senders])


def refused(change):
    """Say whether the database refuses a change."""
    try:
        with transaction.atomic():
            change()
    except IntegrityError:
        return True
    return False


UPDATES = {
    "a device in no known state": (Device, {"state": "asleep"}),
    "an assignment in no known state": (Assignment, {"state": "asleep"}),
    "a run in no known state": (Run, {"state": "asleep"}),
    "a round in no known state": (Round, {"state": "asleep"}),
    "an update in no known state": (Update, {"state": "asleep"}),
    "progress above the whole": (Assignment, {"progress": 1.5}),
    "progress below nothing": (Assignment, {"progress": -0.1}),
    "a run without rounds": (Run, {"rounds": 0}),
    "a quorum of nobody": (Run, {"quorum": 0}),
    "a quorum above the cohort": (Run, {"quorum": 3}),
    "a run without local epochs": (Run, {"local_epochs": 0}),
    "a run with empty batches": (Run, {"batch_size": 0}),
    "a run without time": (Run, {"deadline_seconds": 0}),
    "a run without any patience left": (Run, {"cohort_wait_seconds": -1}),
    "a run that does not learn": (Run, {"learning_rate": 0}),
    "a run with a momentum of 1": (Run, {"momentum": 1}),
    "a run that ended and does not say when": (Run, {"state": "completed"}),
    "a run that goes on and says when it ended": (Run, {"ended_at": NOW}),
    "a round before the first": (Round, {"number": 0}),
    "a round that trains without having started": (Round, {"started_at": None}),
    "a round that trains without a deadline": (Round, {"deadline_at": None}),
    "a deadline before the start": (Round, {"deadline_at": F("started_at")}),
    "an accepted update without examples": (Update, {"num_examples": 0}),
    "an accepted update without a norm": (Update, {"norm": None}),
    "a rejected update with a file": (Update, {"state": "rejected", "file": "updates/x"}),
    "a late update with a file": (Update, {"state": "late", "file": "updates/x"}),
    "an initial model with a parent": (GlobalModel, {"version": 0}),
    "a trained model without a parent": (GlobalModel, {"parent": None, "version": F("version") + 1}),
    "an event before the first": (Event, {"seq": 0}),
    "a token that expires before it is made": (EnrollmentToken, {"expires_at": F("created_at")}),
    "a token that let a device in and was not used": (EnrollmentToken, {"used_at": None}),
}


@pytest.mark.parametrize(("model", "values"), UPDATES.values(), ids=UPDATES.keys())
def test_the_database_refuses(world, model, values):
    assert refused(lambda: model.objects.update(**values))


def copy_of(row, **changes):
    """Return a new, unsaved row like another."""
    names = [field.attname for field in row._meta.concrete_fields if not field.primary_key]
    return type(row)(**{name: getattr(row, name) for name in names} | changes)


COPIES = {
    "two devices of one name": lambda world: copy_of(world.devices[0], fingerprint="f" * 64),
    "two devices of one key": lambda world: copy_of(world.devices[0], name="another"),
    "two offers of one task": lambda world: copy_of(DeviceTask.objects.first()),
    "two leases of one device": lambda world: copy_of(PresenceLease.objects.first(), connection_id="x"),
    "two leases of one connection": lambda world: copy_of(
        PresenceLease.objects.first(), device_id=fleet(1)[0].device.pk
    ),
    "two tokens of one id": lambda world: copy_of(EnrollmentToken.objects.first(), device_id=None),
    "two rounds of one number": lambda world: copy_of(world.ended),
    "two open rounds of one run": lambda world: copy_of(world.open, number=9),
    "two assignments of a device in a round": lambda world: copy_of(world.ended.assignments.first(), cohort_index=7),
    "two places of one index in a round": lambda world: copy_of(
        world.ended.assignments.first(), device_id=fleet(1)[0].device.pk
    ),
    "two open assignments of one device": lambda world: copy_of(
        world.open.assignments.first(), round_id=world.ended.pk, cohort_index=7, state="uploading"
    ),
    "two updates of one assignment": lambda world: copy_of(Update.objects.first()),
    "two models of one version": lambda world: copy_of(world.run.models.get(version=0)),
    "two models of one round": lambda world: copy_of(world.run.models.get(version=1), version=5),
    "two events of one position": lambda world: copy_of(Event.objects.first()),
    "two answers under one key": lambda world: copy_of(
        IdempotentRequest.objects.create(
            user=person("ada"), key="k", request_hash="h", status=200, answer="{}", created_at=NOW
        )
    ),
    "two sign-in codes alike": lambda world: copy_of(
        SignInCode.objects.create(user=person("ada"), code_hash="h", created_at=NOW, expires_at=at(1))
    ),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES.keys())
def test_the_database_refuses_a_second(world, make):
    if make is COPIES["two open assignments of one device"]:
        # The device of the open assignment was in the ended round too: leave that place first.
        world.ended.assignments.filter(device=world.open.assignments.first().device).delete()
    second = make(world)

    assert refused(lambda: type(second).objects.bulk_create([second]))


def test_a_stream_has_one_row():
    Stream.objects.create(name="a")

    assert refused(lambda: Stream.objects.bulk_create([Stream(name="a")]))


def test_what_ended_may_be_many_and_open_ones_may_be_of_different_devices(world):
    assert not refused(lambda: Round.objects.bulk_create([copy_of(world.ended, number=9)]))
    assert world.open.assignments.filter(state="assigned").count() == 2


def test_every_constraint_is_in_the_database_by_its_name():
    for model in (Assignment, Device, DeviceTask, EnrollmentToken, Event, GlobalModel, Round, Run, Update):
        with connection.cursor() as cursor:
            there = connection.introspection.get_constraints(cursor, model._meta.db_table)
        for constraint in model._meta.constraints:
            assert constraint.name in there, constraint.name


def test_a_device_that_took_part_cannot_be_deleted(world):
    with pytest.raises(ProtectedError):
        world.devices[0].delete()


def test_a_device_that_never_took_part_can_be_deleted_and_its_token_stays():
    (one,) = fleet(1)
    one.device.delete()

    token = EnrollmentToken.objects.get()
    assert (token.device, token.used_at) == (None, NOW)
    assert not PresenceLease.objects.exists()


def test_rows_say_what_they_are_in_words(world):
    assert str(world.run) == f"{world.run.label} a run"
    assert world.run.label == f"r-{world.run.pk:04d}"
    assert str(world.open) == f"{world.run.label} round 2"
    assert str(world.run.models.get(version=1)) == f"{world.run.label} v1"
    assert world.devices[0].stream == f"device:{world.devices[0].pk}"
    for model in (Assignment, DeviceTask, EnrollmentToken, Event, PresenceLease, Stream, Update):
        assert str(model.objects.first())
