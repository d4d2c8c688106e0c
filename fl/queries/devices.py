"""Devices as pages show them, and the tokens that wait for one."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db.models import Count

from edge.protocol.server import DeviceStatus
from fl.lifecycle import OPEN_ASSIGNMENTS, DeviceState
from fl.models import Assignment, Device, EnrollmentToken
from fl.payloads import device_status_from
from fl.queries.positions import Positions, positions_of
from fl.snapshots import consistent_read
from fl.visibility import Principal


@dataclass(frozen=True)
class Fleet:
    """The devices, and the tokens that wait for one."""

    devices: list[DeviceStatus]
    rows: dict[int, Device]
    tokens: list[EnrollmentToken]
    positions: Positions


def fleet(principal: Principal, *, with_tokens: bool = False) -> Fleet:
    """Read all devices, and where asked for, the enrolment tokens."""
    with consistent_read():
        devices = all_devices()
        open_ones = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round")
        return Fleet(
            devices=statuses(devices, open_ones),
            rows={device.pk: device for device in devices},
            tokens=list(EnrollmentToken.objects.filter(used_at__isnull=True)[:20]) if with_tokens else [],
            positions=positions_of(principal, []),
        )


def ready_devices(task_digests: Collection[str]) -> dict[str, int]:
    """Count, for each task digest, the active devices that are online and offer it."""
    ready = Device.objects.filter(
        state=DeviceState.ACTIVE, lease__closed_at__isnull=True, lease__isnull=False, tasks__digest__in=task_digests
    )
    counted = ready.values("tasks__digest").annotate(devices=Count("pk", distinct=True))
    counts = dict.fromkeys(task_digests, 0)
    counts.update({row["tasks__digest"]: row["devices"] for row in counted if row["tasks__digest"] in counts})
    return counts


def all_devices() -> list[Device]:
    """Read all devices by name, with their leases and tasks."""
    return list(Device.objects.select_related("lease").prefetch_related("tasks").order_by("name"))


def statuses(devices: Iterable[Device], assignments: Iterable[Assignment]) -> list[DeviceStatus]:
    """Return devices as they are announced, with the open assignments among those given."""
    open_ones = {row.device_id: row for row in assignments if row.state in OPEN_ASSIGNMENTS}
    return [device_status_from(device, open_ones.get(device.pk)) for device in devices]
