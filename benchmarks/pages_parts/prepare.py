"""Makes a database with many devices and a long run, as a busy server has them after weeks, and a session for a viewer.

python -m pages_parts.prepare DEVICES ROUNDS COHORT FILE     writes what is open to FILE, prints a cookie
"""

import json
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "qflare.settings"

if TYPE_CHECKING:
    from fl.models import Device, GlobalModel, Round, Run

PAST_COHORT = 12
"""Devices of each round that is over: rows enough to be counted, few enough to be written in seconds."""


def main() -> None:
    django.setup()

    from django.core.management import call_command

    from qflare.static import collect_if_stale

    devices, rounds, cohort, file = (*map(int, sys.argv[1:4]), sys.argv[4])
    call_command("migrate", verbosity=0)
    collect_if_stale()
    enrolled = _devices(devices)
    run = _run(rounds, cohort)
    open_round = _rounds(run, rounds, enrolled)
    Path(file).write_text(json.dumps(_assign(run, open_round, enrolled[:cohort])))
    print(_session())


def _devices(count: int) -> "list[Device]":
    from django.utils import timezone

    from edge.identity import ALGORITHM
    from fl.models import Device, DeviceTask, PresenceLease
    from fl.tasks import digest_of_task

    now = timezone.now()
    made = Device.objects.bulk_create(
        Device(
            name=f"device-{number:04d}",
            algorithm=ALGORITHM,
            public_key=number.to_bytes(4, "big"),
            fingerprint=f"{number:064x}",
            state="active",
            enrolled_at=now,
            last_heard_at=now,
            edge_version="0.1.0",
        )
        for number in range(count)
    )
    digest = digest_of_task("digits")
    DeviceTask.objects.bulk_create(
        DeviceTask(device=device, task="digits", digest=digest, num_examples=100 + number)
        for number, device in enumerate(made)
    )
    until = now + timedelta(days=1)
    PresenceLease.objects.bulk_create(
        PresenceLease(
            device=device, connection_id=f"c{device.pk}", instance="benchmark", connected_at=now, lease_until=until
        )
        for device in made
    )
    return made


def _run(rounds: int, cohort: int) -> "Run":
    from django.utils import timezone

    from fl.runs import RunPlan, create_run, start_run

    now = timezone.now() - timedelta(days=1)
    plan = RunPlan(name="a long run", task="digits", rounds=rounds + 100, cohort_size=cohort, quorum=cohort // 2)
    run = create_run(plan=plan, created_by=None, now=now)
    return start_run(run=run, now=now)


def _rounds(run: "Run", count: int, devices: "list[Device]") -> "Round":
    """Make the rounds that are over, each with its model, and the one that trains; return that."""
    from fl.models import Assignment, Round

    begun = run.created_at
    initial = _model(run, 0, None, None, begun)
    initial.save()
    last, past = initial, []
    for number in range(1, count):
        start = begun + timedelta(seconds=60 * number)
        spread = {"mean": _accuracy(number), "p10": _accuracy(number) - 0.05, "p90": _accuracy(number) + 0.03}
        round_ = Round.objects.create(
            run=run,
            number=number,
            state="completed",
            base_model=last,
            opened_at=start,
            started_at=start,
            deadline_at=start + timedelta(seconds=600),
            closed_at=start + timedelta(seconds=40),
            ended_at=start + timedelta(seconds=41),
            device_metrics={"accuracy": spread},
        )
        last = _model(run, number, last, round_, start)
        last.save()
        past.append(round_)
    Assignment.objects.bulk_create(
        Assignment(
            round=round_,
            device=devices[(round_.number * PAST_COHORT + place) % len(devices)],
            cohort_index=place,
            state="expired" if (round_.number + place) % 97 == 0 else "accepted",
            progress=1,
            assigned_at=round_.opened_at,
            ended_at=round_.closed_at,
        )
        for round_ in past
        for place in range(PAST_COHORT)
    )
    run.best_model = last
    run.save()
    start = begun + timedelta(days=1)
    return Round.objects.create(
        run=run,
        number=count,
        state="training",
        base_model=last,
        opened_at=start,
        started_at=start,
        deadline_at=start + timedelta(days=1),
    )


def _accuracy(number: int) -> float:
    return 0.95 - 0.7 / (1 + number / 20)


def _model(
    run: "Run",
    version: int,
    parent: "GlobalModel | None",
    round_: "Round | None",
    now: datetime,
) -> "GlobalModel":
    from fl.models import GlobalModel

    return GlobalModel(
        run=run,
        version=version,
        parent=parent,
        round=round_,
        digest=f"{version:064x}",
        file=f"models/{version}",
        size=60_000,
        strategy_state_file="",
        metrics={"accuracy": _accuracy(version), "loss": 2.3 / (1 + version / 30)},
        created_at=now,
        published_at=now,
    )


def _assign(run: "Run", round_: "Round", devices: "list[Device]") -> dict[str, list[dict[str, int | str]]]:
    from fl.models import Assignment

    made = Assignment.objects.bulk_create(
        Assignment(round=round_, device=device, cohort_index=place, state="training", assigned_at=round_.opened_at)
        for place, device in enumerate(devices)
    )
    return {
        "assignments": [{"assignment": row.pk, "device": row.device_id, "name": row.device.name} for row in made],
        "run": [{"id": run.pk, "round": round_.number}],
    }


def _session() -> str:
    from django.conf import settings
    from django.contrib.auth.models import Group, User
    from django.test import Client

    user = User.objects.create_user("viewer")
    user.groups.add(Group.objects.get(name="viewer"))
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}"


if __name__ == "__main__":
    main()
