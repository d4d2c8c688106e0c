"""Something of everything that pages show, made by the use cases on a server that does not run meanwhile.

Afterwards nothing moves: the open round waits for its devices until tomorrow, and nobody else has work.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from edge.protocol.client import Progress
from edge.protocol.server import ErrorNotification
from fl import devices, events, runs
from fl.assignments import report_progress
from fl.exceptions import UpdateRefused
from fl.models import Run
from tests.builders import Participant, crowd, participant, person, started_run, step

COHORT = 14
"""Devices of a round: more than a card shows without scrolling, and too few for a mosaic."""
CROWD = 40
"""Further devices, enough for the mosaic of their list."""


def fill(now: datetime) -> dict[str, int]:
    """Make runs, devices and events; return the ids by which the pages are found."""
    owner = person("ada", "operator")
    clinics = [participant(f"clinic-{number:02d}", now=now).connect(now) for number in range(COHORT)]
    plain = {"cohort_size": COHORT, "quorum": 1, "deadline_seconds": 86_400.0}
    finished = started_run(now, name="a finished run", rounds=3, **plain)
    for spoilt in (0, 2, 1):
        play_round(finished, clinics, now, spoilt=spoilt)
    slower = started_run(now, name="a run of smaller steps", rounds=2, learning_rate=0.01, **plain)
    for _ in range(2):
        play_round(slower, clinics, now)
    failed = started_run(now, name="a run that failed", rounds=1, **{**plain, "quorum": COHORT})
    play_round(failed, clinics, now, spoilt=1)
    runs.pause_run(run=started_run(now, name="a run that is paused", **plain), now=now, by=owner)
    described = {"tags": ["winter", "non-iid"], "notes": "Smaller steps are for tomorrow.\nLook at the late ones."}
    runs.describe_run(run=finished, now=now, by=owner, **described)
    live = started_run(now, name="a run that goes on with a rather long name, as people give them", **plain)
    _begin_a_round(live, clinics, now)
    _others(now)
    with events.transaction():
        trouble = ErrorNotification(code="x", title="Something is odd", detail="in many words " * 12, severity="error")
        events.record(events.SYSTEM, trouble, now)
    return {"finished": finished.pk, "slower": slower.pk, "live": live.pk, "clinic": clinics[0].device.pk}


def play_round(run: Run, clinics: list[Participant], now: datetime, *, spoilt: int = 0) -> None:
    """Play a run's open round to its end; so many devices send what is no update."""
    step(run, now)
    for device in clinics[:spoilt]:
        with suppress(UpdateRefused):
            device.send(data=b"no weights", now=now)
    for device in clinics[spoilt:]:
        with suppress(UpdateRefused):  # the round may be over
            device.send(now=now)
    step(run, now)
    if Run.objects.get(pk=run.pk).round_set.filter(ended_at__isnull=True, state="evaluating").exists():
        step(run, now)


def _begin_a_round(run: Run, clinics: list[Participant], now: datetime) -> None:
    step(run, now)
    for device in clinics[:5]:
        device.send(now=now)
    for place, device in enumerate(clinics[5:10]):
        part = device.assignment()
        share = (place + 1) / 6
        report = Progress(
            assignment_id=part.pk, state="training", progress=share, local_epoch=1, local_epochs=2, loss=0.5
        )
        report_progress(device_id=device.device.pk, progress=report, now=now)


def _others(now: datetime) -> None:
    """Make devices in each state, and a token that nobody has used."""
    others = crowd(CROWD, online=30, now=now)
    devices.suspend(device=others[0], reason="numbers that are odd in a way that takes words", now=now, by=None)
    devices.revoke(device=others[1], reason="its key was copied", now=now, by=None)
    devices.tag_device(device=others[2], tags=["north", "gpu"], now=now, by=None)
    participant("asks-to-be-let-in", auto_approve=False, now=now)
    devices.issue_token(label="ward-7", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now)
