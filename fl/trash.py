"""Use cases of the trash: move runs there, restore them, protect them from it; and what lies there too long goes.

A run in the trash is nowhere but there: `fl.visibility` leaves it out, and its stream. Nothing of it is deleted before
its time is over. Then its rows go in one transaction, and nothing else is needed: files that no row names are swept.
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from edge.protocol.server import RunTrash
from fl import audit, events
from fl.audit import Subject
from fl.exceptions import Conflict, NotFound
from fl.models import Assignment, ErrorGroup, Event, GlobalModel, Round, Run, Stream, Update
from fl.models.audit import Act
from fl.rounds import lock_run

PURGED_IN_A_TURN = 50
"""So that rounds do not wait long, whatever has piled up."""


def obstacle(run: Run) -> Conflict | None:
    """Return what keeps a run from the trash, if anything does."""
    if run.is_protected:
        return Conflict(f"run {run.label} is protected", action="end its protection first", code="run_is_protected")
    if run.ended_at is None:
        return Conflict(f"run {run.label} is {run.state}", action="stop it first", code="run_is_open")
    return None


def goes_at(deleted_at: datetime) -> datetime:
    """Return when what was moved to the trash at a moment is deleted for good."""
    return deleted_at + timedelta(days=settings.QFLARE_TRASH_DAYS)


def move_to_trash(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Move a run that has ended to the trash, from where it can be restored for QFLARE_TRASH_DAYS.

    Raises:
        NotFound: there is no such run, or it is there already.
        Conflict: it has not ended, or it is protected.
    """
    with events.transaction():
        locked = _lock_outside(run.pk)
        if (conflict := obstacle(locked)) is not None:
            raise conflict
        _place(locked, deleted_at=now)
        audit.note(Act.RUN_TRASH, Subject.of(locked), by=by, now=now)
        events.record(events.SYSTEM, RunTrash(run_id=locked.pk, run_name=locked.name, state="in_trash"), now)
    return locked


def restore_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Restore a run from the trash, with all that it had.

    Raises:
        NotFound: it is not there.
    """
    with events.transaction():
        locked = Run.objects.select_for_update().filter(pk=run.pk, deleted_at__isnull=False).first()
        if locked is None:
            raise NotFound(f"there is no run {run.pk} in the trash")
        _place(locked, deleted_at=None)
        audit.note(Act.RUN_RESTORE, Subject.of(locked), by=by, now=now)
        events.record(events.SYSTEM, RunTrash(run_id=locked.pk, run_name=locked.name, state="restored"), now)
    return locked


def protect_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """Protect a run from the trash, in whatever state it is.

    Raises:
        NotFound: there is no such run, or it is in the trash.
    """
    return _protect(run, True, Act.RUN_PROTECT, by, now)


def unprotect_run(*, run: Run, now: datetime, by: User | None = None) -> Run:
    """End the protection of a run.

    Raises:
        NotFound: there is no such run, or it is in the trash.
    """
    return _protect(run, False, Act.RUN_UNPROTECT, by, now)


def _protect(run: Run, is_protected: bool, act: Act, by: User | None, now: datetime) -> Run:
    with events.transaction():
        locked = _lock_outside(run.pk)
        if locked.is_protected != is_protected:
            locked.is_protected = is_protected
            locked.save(update_fields=["is_protected"])
            audit.note(act, Subject.of(locked), by=by, now=now)
    return locked


def _lock_outside(run_id: int) -> Run:
    locked = lock_run(run_id)
    if locked.deleted_at is not None:
        raise NotFound(f"there is no run {run_id}")
    return locked


def _place(run: Run, *, deleted_at: datetime | None) -> None:
    run.deleted_at = deleted_at
    run.save(update_fields=["deleted_at"])
    Stream.objects.filter(name=run.stream).update(in_trash=deleted_at is not None)


# ── for good ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def purge(*, now: datetime) -> int:
    """Delete for good the runs that lie in the trash longer than QFLARE_TRASH_DAYS; return how many.

    Their files are named by no row any more, then, and are swept.
    """
    due = _due(now).order_by("deleted_at").values_list("pk", flat=True)
    return sum(_purge(run_id, now) for run_id in list(due[:PURGED_IN_A_TURN]))


def _due(now: datetime) -> QuerySet[Run]:
    return Run.objects.filter(deleted_at__lte=now - timedelta(days=settings.QFLARE_TRASH_DAYS))


def _purge(run_id: int, now: datetime) -> bool:
    with transaction.atomic():
        run = _due(now).select_for_update().filter(pk=run_id).first()
        if run is None:
            return False  # it was restored meanwhile, or another process was faster
        for rows in _rows_of(run):
            # Row by row, as Django deletes, a long run would take minutes.
            rows.order_by()._raw_delete(rows.db)
    return True


def _rows_of(run: Run) -> list[QuerySet[Any]]:
    """Return all rows of a run, to be deleted in this order; that some name others which go before is checked last."""
    rounds = Round.objects.filter(run=run)
    assignments = Assignment.objects.filter(round__in=rounds)
    return [
        Update.objects.filter(assignment__in=assignments),
        assignments,
        GlobalModel.objects.filter(run=run),
        rounds,
        Run.objects.filter(pk=run.pk),
        # Were errors still to be told, they would open the stream again.
        ErrorGroup.objects.filter(stream=run.stream),
        Event.objects.filter(stream=run.stream),
        Stream.objects.filter(name=run.stream),
    ]
