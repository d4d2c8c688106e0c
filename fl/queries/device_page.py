"""One device as its page shows it: what it is and does now, when it was there, and what became of its rounds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.db.models import QuerySet

from edge.protocol.server import DeviceStatus, TrainingProgress
from fl.events import SYSTEM
from fl.exceptions import NotFound
from fl.lifecycle import OPEN_ASSIGNMENTS
from fl.models import Assignment, Device, Event, Stream, Update
from fl.models.update import UpdateState
from fl.payloads import assignment_progress, device_status_from
from fl.presence import UNKNOWN, Change, Span, spans, told_changes
from fl.queries.devices import device_rows, reasons_to_look, with_outcomes
from fl.queries.positions import Positions, positions_of
from fl.snapshots import consistent_read
from fl.visibility import Principal

ROUNDS_A_PAGE = 25
CHARTED_UPDATES = 100
"""How many of the newest accepted updates the charts show."""
SHOWN_CHANGES = 20
EVENTS_LOOKED_AT = 10_000
"""Among how many of the server's newest events those of a device are looked for."""
SHOWN_EVENTS = 30


@dataclass(frozen=True)
class RoundPart:
    """A device's part of one round."""

    run_id: int
    run_label: str
    run_name: str
    round: int
    state: str
    reason: str
    duration_seconds: float | None
    num_examples: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    norm: float | None = None
    """L2 norm of the update."""


@dataclass(frozen=True)
class History:
    """When a device was online, between two moments."""

    since: datetime
    until: datetime
    spans: list[Span]
    changes: list[Change]
    """What changed, newest first, at most SHOWN_CHANGES of `total`."""
    total: int


@dataclass(frozen=True)
class DeviceView:
    """A device with all that its page shows."""

    device: Device
    status: DeviceStatus
    work: TrainingProgress | None
    attention: tuple[str, ...]
    history: History
    rounds: list[RoundPart]
    """A page of the rounds that it was selected for, newest first."""
    total_rounds: int
    updates: list[RoundPart]
    """The newest accepted updates, oldest first."""
    events: list[Event]
    """The newest events of the server that are about this device, oldest first."""
    own_events: list[Event] | None
    """The newest events of the device's own stream, newest first; None for who may not see it."""
    positions: Positions


def device_view(principal: Principal, device_id: int, *, hours: int, page: int, now: datetime) -> DeviceView:
    """Read a device.

    Args:
        hours: how far back its history of connections goes.
        page: of its rounds, from 1.

    Raises:
        NotFound: there is no such device.
    """
    with consistent_read():
        found = with_outcomes(device_rows()).select_related("lease", "enrollment_token__created_by")
        device = found.filter(pk=device_id).first()
        if device is None:
            raise NotFound(f"there is no device {device_id}")
        assignments = _assignments(device)
        at_work = assignments.filter(state__in=OPEN_ASSIGNMENTS).first()
        status = device_status_from(device, at_work)
        first = (page - 1) * ROUNDS_A_PAGE
        return DeviceView(
            device=device,
            status=status,
            work=assignment_progress(at_work, None) if at_work else None,
            attention=reasons_to_look(device, status, now),
            history=_history(device, now - timedelta(hours=hours), now),
            rounds=_parts(assignments.order_by("-pk")[first : first + ROUNDS_A_PAGE]),
            total_rounds=assignments.count(),
            updates=_updates(assignments),
            events=_events_about(device),
            own_events=_own_events(device) if principal.sees(device.stream) else None,
            positions=positions_of(principal, []),
        )


# ── its rounds ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _assignments(device: Device) -> QuerySet[Assignment]:
    there = Assignment.objects.filter(device=device, round__run__deleted_at__isnull=True)
    rows = there.select_related("round__run", "update", "device")
    return rows.defer("device__public_key", "update__manifest", "update__signature")


def _updates(assignments: QuerySet[Assignment]) -> list[RoundPart]:
    accepted = assignments.filter(update__state=UpdateState.ACCEPTED).order_by("-pk")
    return _parts(accepted[:CHARTED_UPDATES])[::-1]


def _parts(assignments: Iterable[Assignment]) -> list[RoundPart]:
    return [_part(assignment, getattr(assignment, "update", None)) for assignment in assignments]


def _part(assignment: Assignment, update: Update | None) -> RoundPart:
    run = assignment.round.run
    ended, metrics = assignment.ended_at, update.metrics if update else {}
    return RoundPart(
        run_id=run.pk,
        run_label=run.label,
        run_name=run.name,
        round=assignment.round.number,
        state=assignment.state,
        reason=assignment.reason,
        duration_seconds=(ended - assignment.assigned_at).total_seconds() if ended else None,
        # A rejected update's manifest is not believed.
        num_examples=update.num_examples or None if update else None,
        loss=_finite(metrics.get("loss")),
        accuracy=_finite(metrics.get("accuracy")),
        norm=_finite(update.norm if update else None),
    )


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


# ── when it was there ─────────────────────────────────────────────────────────────────────────────────────────────────


def _history(device: Device, since: datetime, until: datetime) -> History:
    told = _statuses_of(device)
    changes = [_change(event) for event in told.filter(timestamp__gte=since).order_by("timestamp", "seq")]
    earlier = told.filter(timestamp__lt=since).order_by("-timestamp", "-seq").first()
    before = _change(earlier) if earlier else None
    differing = told_changes(changes, before)
    return History(
        since=since,
        until=until,
        spans=spans(changes, before=before.presence if before else UNKNOWN, since=since, until=until),
        changes=differing[: -SHOWN_CHANGES - 1 : -1],
        total=len(differing),
    )


def _statuses_of(device: Device) -> QuerySet[Event]:
    # Only `system` has statuses, and to name it would lead away from their own index. The number is a payload's first
    # field.
    return Event.objects.filter(event=DeviceStatus.event, data__startswith=f'{{"device_id":{device.pk},')


def _change(event: Event) -> Change:
    status = msgspec.json.decode(event.data, type=DeviceStatus)
    return Change(at=event.timestamp, presence=status.presence, state=status.state, reason=status.reason)


# ── what was told of it ───────────────────────────────────────────────────────────────────────────────────────────────


def _events_about(device: Device) -> list[Event]:
    head = Stream.objects.filter(name=SYSTEM).values_list("head", flat=True).first() or 0
    newest = Event.objects.filter(stream=SYSTEM, seq__gt=head - EVENTS_LOOKED_AT).order_by("-seq")
    return list(newest.filter(data__contains=f'"device_id":{device.pk},')[:SHOWN_EVENTS])[::-1]


def _own_events(device: Device) -> list[Event]:
    return list(Event.objects.filter(stream=device.stream).order_by("-seq")[:SHOWN_EVENTS])
