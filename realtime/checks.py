"""What must be right before sockets are served: what cannot work is refused, what is doubtful is told of."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

MOUNTS = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "glusterfs"})


def layer_is_in_memory() -> bool:
    """Say whether the channel layer reaches this process alone."""
    return "memory" in settings.CHANNEL_LAYERS["default"]["BACKEND"].lower()


@register()
def database_is_a_file_or_a_server(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Each connection to an in-memory SQLite has a database of its own, and every thread has its connection."""
    database = _database()
    name = str(database["NAME"])
    if "sqlite" not in database["ENGINE"] or (name and ":memory:" not in name and "mode=memory" not in name):
        return []
    return [
        Error(
            f"The database {name or '(without a name)'!r} is in memory: every thread would have one of its own.",
            hint="Set DATABASE_URL to a file (sqlite:////path/to/qflare.sqlite3) or to PostgreSQL, or leave it out.",
            id="realtime.E001",
        )
    ]


@register()
def layer_reaches_all_workers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Several workers of one server need a layer that all of them hear."""
    workers = os.environ.get("WEB_CONCURRENCY", "1")
    if not workers.isdecimal() or int(workers) <= 1 or not layer_is_in_memory():
        return []
    return [
        Error(
            f"WEB_CONCURRENCY={workers} starts several processes, but the channel layer is in memory: progress, and "
            "the ends of sessions and devices, would not get from one to the others.",
            hint="Set REDIS_URL, or WEB_CONCURRENCY=1.",
            id="realtime.E002",
        )
    ]


@register()
def database_is_on_this_machine(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """SQLite's write-ahead log needs memory that all processes share, which a network does not give."""
    database = _database()
    if "sqlite" not in database["ENGINE"]:
        return []
    kind = _file_system_of(Path(database["NAME"]))
    if kind not in NETWORK_FILE_SYSTEMS:
        return []
    return [
        Warning(
            f"The database {database['NAME']} is on a network folder ({kind}): used from two machines it breaks.",
            hint="Set DATABASE_URL to PostgreSQL, or QFLARE_DATA_DIR to a folder of this machine.",
            id="realtime.W001",
        )
    ]


@register()
def proxies_are_known(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Behind a proxy that is not believed everybody has the proxy's address, and shares its limits."""
    if not settings.QFLARE_BEHIND_TLS or settings.QFLARE_TRUSTED_PROXIES:
        return []
    return [
        Warning(
            "QFLARE_BEHIND_TLS is on and QFLARE_TRUSTED_PROXIES is empty: all clients count as the proxy's address, "
            f"which may have {settings.QFLARE_MAX_CONNECTIONS_PER_ADDRESS} connections.",
            hint="List the proxy in QFLARE_TRUSTED_PROXIES.",
            id="realtime.W002",
        )
    ]


@register()
def pings_fit_the_heartbeat(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Whoever keeps the heartbeat is heard of before a ping is due, and a ping's answer before the next one."""
    ping, pong, heartbeat = (getattr(settings, f"QFLARE_{name}_SECONDS") for name in ("PING", "PONG", "HEARTBEAT"))
    if pong < ping and heartbeat < ping:
        return []
    return [
        Warning(
            f"Sockets are pinged after {ping:g} s of silence, and have {pong:g} s to answer; heartbeats come every "
            f"{heartbeat:g} s. Peers would be pinged for nothing, or ended too late.",
            hint="Set QFLARE_PING_SECONDS above both QFLARE_HEARTBEAT_SECONDS and QFLARE_PONG_SECONDS.",
            id="realtime.W003",
        )
    ]


@register()
def members_join_before_they_are_forgotten(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The core layer forgets members of groups after a while, so they have to join again before that."""
    expiry = settings.CHANNEL_LAYERS["default"].get("CONFIG", {}).get("group_expiry")
    if expiry is None or expiry > settings.QFLARE_REJOIN_SECONDS:
        return []
    return [
        Error(
            f"Groups are joined again every {settings.QFLARE_REJOIN_SECONDS:g} s, but the channel layer forgets who "
            f"belongs to them after {expiry:g} s: in between nothing would be heard.",
            hint="Set QFLARE_REJOIN_SECONDS well below QFLARE_GROUP_EXPIRY_SECONDS.",
            id="realtime.E003",
        )
    ]


def _database() -> dict[str, Any]:
    return settings.DATABASES["default"]


def _file_system_of(path: Path) -> str:
    """Return the kind of file system that holds a path; empty where the system does not say."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    mounts = {Path(fields[1]): fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    return next((mounts[folder] for folder in [path, *path.parents] if folder in mounts), "")
