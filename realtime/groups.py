"""The names of groups: one for each connection type, one for each device and each person."""

from enum import StrEnum

from fl.visibility import audience_stream


class Kind(StrEnum):
    """Types of connections; each is the name of its group and of its audience."""

    DASHBOARD = "dashboard"
    CLIENTS = "clients"
    ADMIN = "admin"
    GENERAL = "general"


KINDS = frozenset(kind.value for kind in Kind)


def device_group(device_id: int) -> str:
    """Return the group of one device's connections."""
    return f"device.{device_id}"


def user_group(user_id: int) -> str:
    """Return the group of one person's connections, of whatever type."""
    return f"user.{user_id}"


def groups_of(stream: str, *, public: bool) -> tuple[str, ...]:
    """Return the groups that can hold somebody who may see a stream."""
    kind, _, rest = stream.partition(":")
    match kind:
        case "run":
            people_and_devices = (Kind.DASHBOARD, Kind.ADMIN, Kind.CLIENTS)
            return (*people_and_devices, Kind.GENERAL) if public else people_and_devices
        case "system":
            return (Kind.DASHBOARD, Kind.ADMIN)
        case "device":
            return (device_group(int(rest)), Kind.ADMIN) if rest.isdecimal() else ()
        case "audience":
            return (Kind(rest),) if rest in KINDS else ()
        case _:
            return ()


def follows_unasked(kind: Kind, stream: str, device_id: int | None) -> bool:
    """Say whether connections of a type follow a stream without asking for it, provided that they may see it.

    Each hears the broadcasts to its own type alone. Admins see the streams of all devices, but follow them on request:
    what a device is told is told to people by `system` too.
    """
    family, _, rest = stream.partition(":")
    match family:
        case "audience":
            return stream == audience_stream(kind)
        case "device":
            return device_id is not None and rest == str(device_id)
        case _:
            return True
