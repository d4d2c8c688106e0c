"""What is true now, as one may see it, read together with the position of each stream."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import OuterRef, QuerySet, Subquery

from edge.protocol.server import DeviceStatus, FlStatusUpdate, ModelAggregation, Position, Snapshot
from fl.assignments import open_assignment_of
from fl.lifecycle import OPEN_ASSIGNMENTS
from fl.models import Assignment, Device, GlobalModel, Round, Run
from fl.payloads import (
    assignment_message,
    assignment_progress,
    device_status_from,
    model_completed_from,
    run_status_from,
)
from fl.roles import Role
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
    # A connection that is not open yet has no mode, and would get one as it opens.
    connection.ensure_connection()
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
    """Return what is true now, as this one may see it; devices see no other device.

    The number of queries does not grow with runs or devices: many ask at once when a server comes back.
    """
    with consistent_read():
        sees_devices = principal.role >= Role.VIEWER
        assignments = _open_assignments() if sees_devices else []
        assignment = open_assignment_of(principal.device_id) if principal.device_id is not None else None
        runs, models = _runs_and_models(principal)
        return Snapshot(
            streams=positions_for(principal),
            runs=runs,
            models=models,
            progress=[assignment_progress(row, getattr(row, "update", None)) for row in assignments],
            devices=_devices(assignments) if sees_devices else [],
            assignment=assignment_message(assignment) if assignment else None,
        )


def _runs_and_models(principal: Principal) -> tuple[list[FlStatusUpdate], list[ModelAggregation]]:
    """Return the newest runs and the newest published version of each."""
    visible = runs_for(principal).select_related("best_model").order_by("-pk")
    standings = standings_of(list(with_newest(visible)[:MAX_RUNS]))
    models = [model_completed_from(each.model, each.states) for each in standings if each.model]
    return [each.status for each in standings], models


@dataclass(frozen=True)
class Standing:
    """A run as it stands: its newest published model, and the states of the assignments that made it."""

    run: Run
    status: FlStatusUpdate
    model: GlobalModel | None
    states: list[str]


def with_newest(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Let runs be read with what `standings_of` needs: the keys of their newest round and newest published model."""
    mine = Round.objects.filter(run=OuterRef("pk")).order_by("-number").values("pk")
    published = GlobalModel.objects.filter(run=OuterRef("pk"), published_at__isnull=False).order_by("-version")
    return runs.annotate(round_pk=Subquery(mine[:1]), model_pk=Subquery(published.values("pk")[:1]))


def standings_of(runs: Sequence[Run]) -> list[Standing]:
    """Read how runs stand, in three queries; they come from `with_newest`, and with their best model."""
    rounds = Round.objects.in_bulk([vars(run)["round_pk"] for run in runs])
    models = GlobalModel.objects.select_related("run", "round").in_bulk([vars(run)["model_pk"] for run in runs])
    states = _states_of({*rounds, *(model.round_id for model in models.values() if model.round_id)})
    standings = []
    for run in runs:
        round_pk, model = vars(run)["round_pk"], models.get(vars(run)["model_pk"])
        status = run_status_from(run, rounds.get(round_pk), states[round_pk], model)
        standings.append(Standing(run, status, model, states[model.round_id] if model else []))
    return standings


def _states_of(round_ids: Collection[int]) -> dict[int | None, list[str]]:
    """Return the states of the assignments of each round."""
    states: dict[int | None, list[str]] = defaultdict(list)
    rows = Assignment.objects.filter(round__in=round_ids).order_by()
    for round_id, state in rows.values_list("round_id", "state"):
        states[round_id].append(state)
    return states


def _open_assignments() -> list[Assignment]:
    rows = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round", "device", "update")
    return list(rows.order_by("round", "cohort_index"))


def _devices(assignments: Sequence[Assignment]) -> list[DeviceStatus]:
    at_work = {row.device_id: row for row in assignments}
    devices = Device.objects.select_related("lease").prefetch_related("tasks").order_by("name")
    return [device_status_from(device, at_work.get(device.pk)) for device in devices]
