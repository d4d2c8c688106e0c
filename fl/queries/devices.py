"""Devices as pages show them, with what one needs to know to say whether they are well."""

from collections.abc import Collection, Iterable
from datetime import datetime

from django.db.models import Count, OuterRef, QuerySet, Subquery

from edge.protocol.server import DeviceStatus
from fl.attention import OUTCOMES, DeviceFacts, attention
from fl.lifecycle import OPEN_ASSIGNMENTS, DeviceState
from fl.models import Assignment, Device
from fl.payloads import device_status_from


def ready_devices(task_digests: Collection[str]) -> dict[str, int]:
    """Count, for each task digest, the active devices that are online and offer it."""
    ready = Device.objects.filter(
        state=DeviceState.ACTIVE, lease__closed_at__isnull=True, lease__isnull=False, tasks__digest__in=task_digests
    )
    counted = ready.values("tasks__digest").annotate(devices=Count("pk", distinct=True))
    counts = dict.fromkeys(task_digests, 0)
    counts.update({row["tasks__digest"]: row["devices"] for row in counted if row["tasks__digest"] in counts})
    return counts


def device_rows() -> QuerySet[Device]:
    """Return devices with their leases and tasks, less their keys, which no page shows."""
    return Device.objects.select_related("lease").prefetch_related("tasks").defer("public_key")


def all_devices() -> list[Device]:
    """Read all devices by name, with what is announced of them, whether they have a lease, and their tasks."""
    announced = ("name", "state", "state_reason", "last_heard_at", "edge_version", "tags", "lease__device")
    return list(device_rows().only(*announced).order_by("name"))


def statuses(devices: Iterable[Device], assignments: Iterable[Assignment]) -> list[DeviceStatus]:
    """Return devices as they are announced, with the open assignments among those given."""
    open_ones = {row.device_id: row for row in assignments if row.state in OPEN_ASSIGNMENTS}
    return [device_status_from(device, open_ones.get(device.pk)) for device in devices]


def with_outcomes(devices: QuerySet[Device]) -> QuerySet[Device]:
    """Add to devices how the newest of their assignments ended that had an outcome, for `reasons_to_look`."""
    # By number, not by time: the index of a device's assignments is in this order already.
    newest = Assignment.objects.filter(device=OuterRef("pk"), state__in=OUTCOMES).order_by("-pk")
    return devices.annotate(
        outcome=Subquery(newest.values("state")[:1]), outcome_reason=Subquery(newest.values("reason")[:1])
    )


def reasons_to_look(device: Device, status: DeviceStatus, now: datetime) -> tuple[str, ...]:
    """Return why a person should look at a device that `with_outcomes` gave."""
    read = vars(device)  # the annotations of with_outcomes
    facts = DeviceFacts(
        state=device.state,
        state_reason=device.state_reason,
        is_online=status.presence == "online",
        open_round=status.round,
        outcome=read["outcome"],
        outcome_reason=read["outcome_reason"] or "",
        duplicated_at=device.duplicated_at,
    )
    return attention(facts, now)


def open_assignments() -> list[Assignment]:
    """Read the open assignments of all devices."""
    rows = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round", "device")
    return list(rows.defer("device__public_key").order_by("pk"))
