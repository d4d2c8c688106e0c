"""A run with many rounds and devices, written at once: for what must not grow with their number."""

import hashlib

from fl.lifecycle import AssignmentState, DeviceState, RoundState, RunState
from fl.models import Assignment, Device, GlobalModel, Round, Run, Update
from fl.runs import create_run
from tests.builders import NOW, at
from tests.fl.views.answers import plan_named

ENDS = {3: AssignmentState.LATE, 5: AssignmentState.REJECTED, 7: AssignmentState.FAILED}
"""Of ten parts, told by the sum of round and device, which do not end in an accepted update."""


def state_of_part(round_number, device_number):
    """Return how a device's part of a round has ended."""
    return ENDS.get((round_number + device_number) % 10, AssignmentState.ACCEPTED)


def long_run(rounds, devices, prefix="device"):
    """Make a run with so many completed rounds, in each of which all of so many devices took part."""
    run = create_run(plan=plan_named("long"), created_by=None, now=NOW)
    planned = {"rounds": rounds, "cohort_size": max(1, devices), "quorum": 1}
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, started_at=NOW, **planned)
    fleet = Device.objects.bulk_create(
        Device(
            name=f"{prefix}-{number:03d}",
            public_key=b"",
            fingerprint=hashlib.sha256(f"{prefix}-{number}".encode()).hexdigest(),
            state=DeviceState.ACTIVE,
            edge_version="0.1.0",
            enrolled_at=NOW,
        )
        for number in range(devices)
    )
    base = GlobalModel.objects.create(run=run, version=0, **_model(0))
    made = Round.objects.bulk_create(
        Round(
            run=run,
            number=number,
            state=RoundState.COMPLETED,
            base_model=base,
            opened_at=at(60 * number),
            started_at=at(60 * number + 1),
            deadline_at=at(60 * number + 50),
            closed_at=at(60 * number + 30),
            ended_at=at(60 * number + 31),
            device_metrics={"accuracy": {"mean": 0.5, "p10": 0.25, "p90": 0.75}},
        )
        for number in range(1, rounds + 1)
    )
    GlobalModel.objects.bulk_create(
        GlobalModel(run=run, version=round_.number, parent=base, round=round_, **_model(round_.number))
        for round_ in made
    )
    _parts(made, fleet)
    run.refresh_from_db()
    return run


def _model(version):
    metrics = {"accuracy": version / 2000, "loss": 1 - version / 2000}
    names = {"digest": f"{version:064x}", "file": f"{version}", "strategy_state_file": f"{version}-state"}
    return {**names, "size": 100 + version, "metrics": metrics, "created_at": NOW, "published_at": NOW}


def _parts(rounds, fleet):
    parts = Assignment.objects.bulk_create(
        Assignment(
            round=round_,
            device=device,
            cohort_index=index,
            state=state_of_part(round_.number, index),
            assigned_at=round_.started_at,
            ended_at=at(60 * round_.number + 1 + 2 * (index + 1)),
        )
        for round_ in rounds
        for index, device in enumerate(fleet)
    )
    Update.objects.bulk_create(
        Update(
            assignment=part,
            state="accepted",
            manifest=b"",
            signature=b"",
            digest="",
            size=10,
            num_examples=40,
            metrics={"loss": 0.5},
            norm=1.0,
            received_at=part.ended_at,
        )
        for part in parts
        if part.state == AssignmentState.ACCEPTED
    )
