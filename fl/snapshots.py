"""What is true now, as one may see it, read together with the position of each stream."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from edge.protocol.server import Position, Snapshot
from fl.assignments import open_assignment_of
from fl.lifecycle import OPEN_ASSIGNMENTS
from fl.models import Assignment, Device
from fl.payloads import assignment_message, assignment_progress, device_status, model_completed, run_status
from fl.roles import Role
from fl.rounds import newest_model
from fl.visibility import Principal, runs_for, streams_for

MAX_RUNS = 100
"""How many of the newest runs a snapshot holds; older ones are to be had by REST."""


@contextmanager
def consistent_read() -> Iterator[None]:
    """Read everything within the block as it was at one moment, without keeping writers waiting."""
    with _deferred_begin(), transaction.atomic():
        if connection.vendor == "postgresql" and not connection.savepoint_ids:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


@contextmanager
def _deferred_begin() -> Iterator[None]:
    # Our SQLite transactions take the write lock when they begin; one that only reads must not.
    mode = getattr(connection, "transaction_mode", None)
    if mode is None:
        yield
        return
    connection.transaction_mode = None  # type: ignore[attr-defined]  # the SQLite wrapper's own
    try:
        yield
    finally:
        connection.transaction_mode = mode  # type: ignore[attr-defined]  # the SQLite wrapper's own


def positions_for(principal: Principal) -> dict[str, Position]:
    """Return where each stream that this one may see stands."""
    return {
        name: Position(epoch=epoch, seq=head)
        for name, epoch, head in streams_for(principal).order_by("name").values_list("name", "epoch", "head")
    }


def snapshot_for(principal: Principal) -> Snapshot:
    """Return what is true now, as this one may see it; devices see no other device."""
    with consistent_read():
        runs = list(runs_for(principal).order_by("-pk")[:MAX_RUNS])
        newest = [model for run in runs if (model := newest_model(run)) is not None]
        sees_devices = principal.role >= Role.VIEWER
        assignment = open_assignment_of(principal.device_id) if principal.device_id is not None else None
        return Snapshot(
            streams=positions_for(principal),
            runs=[run_status(run) for run in runs],
            models=[model_completed(model) for model in newest],
            progress=[assignment_progress(row) for row in _open_assignments()] if sees_devices else [],
            devices=[device_status(device) for device in _devices()] if sees_devices else [],
            assignment=assignment_message(assignment) if assignment else None,
        )


def _open_assignments() -> list[Assignment]:
    rows = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round", "device")
    return list(rows.order_by("round", "cohort_index"))


def _devices() -> list[Device]:
    return list(Device.objects.select_related("lease").prefetch_related("tasks").order_by("name"))
