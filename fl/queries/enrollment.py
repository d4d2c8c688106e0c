"""Who may come in: the tokens that wait for a device, and the devices that wait for approval."""

from dataclasses import dataclass
from datetime import datetime

from edge.protocol.server import DeviceStatus
from fl.lifecycle import DeviceState
from fl.models import Device, EnrollmentToken
from fl.queries.devices import device_rows, open_assignments, statuses
from fl.queries.positions import Positions, positions_of
from fl.snapshots import consistent_read
from fl.visibility import Principal

SHOWN_TOKENS = 20
SHOWN_USED_TOKENS = 5


@dataclass(frozen=True)
class Awaited:
    """What has become of one token."""

    token: EnrollmentToken
    state: str
    """`waiting`, `expired`, `pending` (its device waits for approval), `offline`, `online`, or what bars its device."""
    device: DeviceStatus | None = None


@dataclass(frozen=True)
class Enrollment:
    """Tokens, and the devices that they let in."""

    devices: list[DeviceStatus]
    pending: list[Device]
    tokens: list[EnrollmentToken]
    """Those not yet used, newest first."""
    used: list[EnrollmentToken]
    """The last that were used, newest first."""
    awaited: Awaited | None
    """The one that a person has just issued and waits for."""
    positions: Positions


def enrollment(principal: Principal, token_id: int | None, now: datetime) -> Enrollment:
    """Read the tokens and the devices; `token_id` is of the token that somebody waits for."""
    with consistent_read():
        devices = list(device_rows().order_by("name"))
        told = statuses(devices, open_assignments())
        tokens = EnrollmentToken.objects.select_related("device").defer("device__public_key")
        token = tokens.filter(pk=token_id).first() if token_id is not None else None
        return Enrollment(
            devices=told,
            pending=[device for device in devices if device.state == DeviceState.PENDING],
            tokens=list(tokens.filter(used_at__isnull=True).order_by("-created_at", "-pk")[:SHOWN_TOKENS]),
            used=list(tokens.filter(device__isnull=False).order_by("-used_at")[:SHOWN_USED_TOKENS]),
            awaited=awaited(token, {status.device_id: status for status in told}, now) if token else None,
            positions=positions_of(principal, []),
        )


def awaited(token: EnrollmentToken, devices: dict[int, DeviceStatus], now: datetime) -> Awaited:
    """Say what has become of a token."""
    device = devices.get(token.device_id) if token.device_id is not None else None
    if device is None:
        return Awaited(token, "waiting" if token.used_at is None and token.expires_at > now else "expired")
    return Awaited(token, device.state if device.state != DeviceState.ACTIVE else device.presence, device)
