"""Use cases of a device at work: how far it is, and that it gives up."""

from datetime import datetime, timedelta

from django.conf import settings

from edge.protocol.client import Progress
from edge.protocol.server import DeviceTick, ErrorNotification
from fl import events
from fl.exceptions import Conflict, Invalid, NotFound
from fl.lifecycle import OPEN_ASSIGNMENTS, AssignmentState
from fl.models import Assignment, Device
from fl.notifications import notify
from fl.payloads import assignment_progress
from fl.prepared import Prepared, PreparedUpdate
from fl.rounds import end_assignment, lock_run, tell_run

_AT_WORK = (AssignmentState.TRAINING, AssignmentState.UPLOADING)
# What progress is told from, and no more: devices report twice a second each.
_COLUMNS = (
    *("round_id", "device_id", "state", "reason", "progress_at"),
    *("device__name", "round__run_id", "round__number"),
)
_open_assignments = Prepared(
    lambda assignment, device: (
        Assignment.objects.filter(pk=assignment, device=device, state__in=OPEN_ASSIGNMENTS)
        .order_by()
        .select_related("round", "device")
        .only(*_COLUMNS)
    )
)

_go_on = PreparedUpdate(
    lambda assignment: Assignment.objects.filter(pk=assignment, state__in=OPEN_ASSIGNMENTS),
    *("state", "progress", "loss", "progress_at"),
)


def open_assignment_of(device_id: int) -> Assignment | None:
    """Return what a device has to do now."""
    return (
        Assignment.objects.filter(device_id=device_id, state__in=OPEN_ASSIGNMENTS)
        .select_related("round", "round__run", "round__base_model", "device")
        .first()
    )


def check_progress(progress: Progress) -> None:
    """Look whether progress can be at all, whatever the assignment.

    Raises:
        Invalid: the state or share is none that a device at work can have.
    """
    if progress.state not in _AT_WORK or not 0 <= progress.progress <= 1:
        raise Invalid(f"progress must be a share in [0, 1] while {' or '.join(_AT_WORK)}", field="progress")


def report_progress(*, device_id: int, progress: Progress, now: datetime) -> None:
    """Tell how far a device is; the row is written when the state changes, and at most every few seconds otherwise.

    Progress of an assignment that is not, or no longer, this device's open one says nothing and changes nothing.

    Raises:
        Invalid: the state or share is none that a device at work can have.
    """
    check_progress(progress)
    assignment = _open_assignments.first(assignment=progress.assignment_id, device=device_id)
    if assignment is None:
        return
    _write(assignment, progress, now)
    round_ = assignment.round
    events.tick_device(_tick(assignment, progress), run_id=round_.run_id, round=round_.number, now=now)


def _write(assignment: Assignment, progress: Progress, now: datetime) -> None:
    patience = timedelta(seconds=settings.QFLARE_PROGRESS_SECONDS)
    before = assignment.state
    if before == progress.state and assignment.progress_at and now - assignment.progress_at < patience:
        return
    changes = {"state": progress.state, "progress": progress.progress, "loss": progress.loss, "progress_at": now}
    with events.transaction():
        if _go_on(changes, assignment=assignment.pk) and before != progress.state:
            for name, value in changes.items():
                setattr(assignment, name, value)
            events.record(events.SYSTEM, assignment_progress(assignment, None), now)


def _tick(assignment: Assignment, progress: Progress) -> DeviceTick:
    return DeviceTick(
        assignment_id=assignment.pk,
        device_id=assignment.device_id,
        device_name=assignment.device.name,
        phase=progress.state,
        progress=progress.progress,
        local_epoch=progress.local_epoch,
        local_epochs=progress.local_epochs,
        loss=progress.loss,
    )


def give_up(*, device: Device, assignment_id: int, reason: str, now: datetime) -> Assignment:
    """End a device's assignment as failed because the device says so; the round goes on without it.

    Raises:
        NotFound: the device has no such assignment.
        Conflict: the assignment has ended otherwise.
    """
    assignment = Assignment.objects.filter(pk=assignment_id, device=device).select_related("round", "device").first()
    if assignment is None:
        raise NotFound(f"there is no assignment {assignment_id} of this device")
    with events.transaction():
        run = lock_run(assignment.round.run_id)
        assignment.refresh_from_db(fields=["state", "reason"])
        if assignment.state == AssignmentState.FAILED:
            return assignment
        if assignment.state not in OPEN_ASSIGNMENTS:
            raise Conflict(f"assignment {assignment_id} is {assignment.state} already")
        end_assignment(assignment, AssignmentState.FAILED, reason=reason, now=now)
        notify(
            events.SYSTEM,
            ErrorNotification(
                code="assignment_failed",
                severity="warning",
                title=f"{device.name} could not train",
                detail=reason,
                action="Look at the device's data and log.",
                run_id=assignment.round.run_id,
                round=assignment.round.number,
                device_id=device.pk,
            ),
            now,
        )
        tell_run(run, now)
        events.wake_coordinators()
    return assignment
