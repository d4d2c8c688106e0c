"""Something of everything that pages show, made by the use cases on a server that does not run meanwhile.

Afterwards nothing moves: the open round waits for its devices until tomorrow, and nobody else has work.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count

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
TRAINING = timedelta(seconds=20)
PLAN = {"cohort_size": COHORT, "quorum": 1, "rounds": 9, "deadline_seconds": 86_400.0}


def fill(now: datetime) -> dict[str, int]:
    """Make runs, devices and events; return the ids by which the pages are found."""
    begun = now - timedelta(hours=1)
    moments = (begun + 2 * TRAINING * number for number in count())
    owner = person("ada", "operator")
    clinics = [participant(f"clinic-{number:02d}", now=begun).connect(begun) for number in range(COHORT)]
    finished = _run(clinics, moments, spoilt=(0, 2, 1), name="a finished run", rounds=3)
    slower = _run(clinics, moments, spoilt=(0, 0), name="a run of smaller steps", rounds=2, learning_rate=0.01)
    _run(clinics, moments, spoilt=(1,), name="a run that failed", rounds=1, quorum=COHORT)
    paused = _run(clinics, moments, spoilt=(), name="a run that is paused")
    runs.pause_run(run=paused, now=next(moments), by=owner)
    described = {"tags": ["winter", "non-iid"], "notes": "Smaller steps are for tomorrow.\nLook at the late ones."}
    runs.describe_run(run=finished, now=now, by=owner, **described)
    long_name = "a run that goes on with a rather long name, as people give them"
    live = _run(clinics, moments, spoilt=(0, 1, 0), name=long_name)
    _begin_a_round(live, clinics, now)
    _make_others(now)
    with events.transaction():
        trouble = ErrorNotification(code="x", title="Something is odd", detail="in many words " * 12, severity="error")
        events.record(events.SYSTEM, trouble, now)
    return {"finished": finished.pk, "slower": slower.pk, "live": live.pk, "clinic": clinics[0].device.pk}


def _run(clinics: list[Participant], moments: Iterator[datetime], *, spoilt: tuple[int, ...], **changes: object) -> Run:
    """Start a run and play as many rounds as `spoilt` has: in each, so many devices send what is no update."""
    run = started_run(next(moments), **{**PLAN, **changes})
    for number in spoilt:
        _play_round(run, clinics, next(moments), spoilt=number)
    return run


def _play_round(run: Run, clinics: list[Participant], now: datetime, *, spoilt: int) -> None:
    step(run, now)
    then = now + TRAINING
    for device in clinics[:spoilt]:
        with suppress(UpdateRefused):
            device.send(data=b"no weights", now=then)
    for device in clinics[spoilt:]:
        device.send(now=then)
    step(run, then)
    if run.round_set.filter(state="evaluating").exists():
        step(run, then)


def _begin_a_round(run: Run, clinics: list[Participant], now: datetime) -> None:
    """Let a third of the devices be done, a third be at work, and a third not have begun."""
    step(run, now)
    for device in clinics[:5]:
        device.send(now=now)
    for place, device in enumerate(clinics[5:10], start=1):
        work = {"state": "training", "progress": place / 6, "local_epoch": 1, "local_epochs": 2, "loss": 0.5}
        part = device.assignment()
        report_progress(device_id=device.device.pk, progress=Progress(assignment_id=part.pk, **work), now=now)


def _make_others(now: datetime) -> None:
    """Make devices in each state, and a token that nobody has used."""
    others = crowd(CROWD, online=30, now=now)
    devices.suspend(device=others[0], reason="numbers that are odd in a way that takes words", now=now, by=None)
    devices.revoke(device=others[1], reason="its key was copied", now=now, by=None)
    devices.tag_device(device=others[2], tags=["north", "gpu"], now=now, by=None)
    participant("asks-to-be-let-in", auto_approve=False, now=now)
    devices.issue_token(label="ward-7", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now)
