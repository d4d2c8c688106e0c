"""What the page of the server's health shows: all of it measured when it is asked for, or said to be not measured."""

import asyncio
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

from django import get_version
from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

from edge.protocol.server import Position
from fl.models import Event, Round
from realtime import health
from realtime.log import StreamHead, read_heads
from realtime.models import LayerOutage, ServerProcess
from realtime.process import running_process
from realtime.publishing import loop_of_process
from realtime.statistics import ConnectionStatistics, connection_statistics

LAYERS = {
    "realtime.memory_layer.MemoryChannelLayer": _("in memory, for this process alone"),
    "channels_redis.pubsub.RedisPubSubChannelLayer": _("Redis, pub/sub"),
    "channels_redis.core.RedisChannelLayer": _("Redis, core"),
}
STREAMS_LOOKED_AT = 20
"""Of so many streams that are behind it is looked up how old their first waiting event is."""

_loaded_at = time.monotonic()


@dataclass(frozen=True)
class Database:
    """The database, as it answered just now.

    Attributes:
        latency_ms: how long it took over SELECT 1.
        size_bytes: None where it does not say.
        place: its file, or its host and name.
    """

    kind: str
    version: str
    latency_ms: float
    size_bytes: int | None
    place: str


@dataclass(frozen=True)
class Layer:
    """The channel layer.

    Attributes:
        state: `ok`, `away` or `in_memory`.
        answer_ms: after how long what was said over it was heard; None where nothing was.
        away_since: when people were told of an outage that is not over.
    """

    kind: str
    state: str
    answer_ms: float | None
    away_since: datetime | None


@dataclass(frozen=True)
class Disk:
    """The file system of the data folder."""

    total_bytes: int
    free_bytes: int
    folder: str

    @property
    def free_share(self) -> float:
        """How much of it is free, in [0, 1]."""
        return self.free_bytes / self.total_bytes if self.total_bytes else 0.0


@dataclass(frozen=True)
class Lag:
    """How far this process is behind the log.

    Attributes:
        events: how many are recorded that it has not handed out.
        oldest_seconds: how old the first of them is; None where there are none.
    """

    events: int
    oldest_seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """How the server is.

    Attributes:
        lag: None where this process hands out nothing: nobody is connected to it, or it serves no sockets.
        processes: server processes, those too that were silent for less than an hour.
        claims: rounds on which coordinators are at work.
        uptime_seconds: since this process has loaded the application.
    """

    measured_at: datetime
    database: Database
    layer: Layer
    disk: Disk
    sockets: ConnectionStatistics
    lag: Lag | None
    processes: list[ServerProcess]
    claims: list[Round]
    versions: dict[str, str]
    uptime_seconds: float


def measure(now: datetime) -> Report:
    """Look at all that the server stands on.

    Raises:
        OperationalError: the database is away.
    """
    return Report(
        measured_at=now,
        database=_database(),
        layer=_layer(),
        disk=_disk(),
        sockets=connection_statistics(now),
        lag=_lag(now),
        processes=list(ServerProcess.objects.order_by("-started_at")),
        claims=list(Round.objects.exclude(claim_token="").select_related("run").order_by("claimed_until")),
        versions={
            "QFLARE": settings.QFLARE_VERSION,
            "Python": platform.python_version(),
            "Django": get_version(),
            "torch": metadata.version("torch"),
        },
        uptime_seconds=time.monotonic() - _loaded_at,
    )


def _database() -> Database:
    own = settings.DATABASES["default"]
    with connection.cursor() as cursor:
        begun = time.perf_counter()
        cursor.execute("SELECT 1")
        cursor.fetchone()
        latency_ms = 1000 * (time.perf_counter() - begun)
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
            (size,) = cursor.fetchone()
            host = own.get("HOST") or gettext("a local socket")
            place = gettext("{name} on {host}").format(name=own["NAME"], host=host)
        else:
            size, place = _size_of_files(str(own["NAME"])), str(own["NAME"])
    version = ".".join(map(str, connection.get_database_version()))
    return Database(connection.display_name, version, latency_ms, size, place)


def _size_of_files(name: str) -> int | None:
    """Return the size of an SQLite database with its log of writes."""
    try:
        return sum(Path(path).stat().st_size for path in (name, f"{name}-wal") if Path(path).exists())
    except OSError:
        return None


def _layer() -> Layer:
    backend = settings.CHANNEL_LAYERS["default"]["BACKEND"]
    begun = time.perf_counter()
    state = health.layer()
    took_ms = 1000 * (time.perf_counter() - begun)
    outage = LayerOutage.objects.first()
    return Layer(
        kind=gettext(LAYERS.get(backend, backend)),
        state=state,
        answer_ms=took_ms if state == "ok" else None,
        away_since=outage.began_at if outage else None,
    )


def _disk() -> Disk:
    folder = settings.QFLARE_DATA_DIR
    usage = shutil.disk_usage(folder)
    return Disk(total_bytes=usage.total, free_bytes=usage.free, folder=str(folder))


def _lag(now: datetime) -> Lag | None:
    loop = loop_of_process()
    if loop is None:
        return None
    # First: what is recorded from here on is not late.
    heads = read_heads(frozenset())
    try:
        done = asyncio.run_coroutine_threadsafe(_handed_out(), loop).result(health.LOOP_SECONDS)
    except TimeoutError:
        return None
    return None if done is None else lag_between(heads, done, now)


async def _handed_out() -> dict[str, Position] | None:
    process = running_process()
    return process.hub.handed_out() if process else None


def lag_between(heads: Sequence[StreamHead], done: dict[str, Position], now: datetime) -> Lag:
    """Return how far what was handed out is behind where the streams stand; one that is not known yet is all news."""
    behind: dict[str, tuple[int, int]] = {}
    for head in heads:
        position = done.get(head.name)
        reached = position.seq if position and position.epoch == head.epoch else 0
        if head.head > reached:
            behind[head.name] = (reached, head.head)
    if not behind:
        return Lag(events=0)
    first = Q(pk__in=[])
    for name, (reached, _head) in sorted(behind.items())[:STREAMS_LOOKED_AT]:
        first |= Q(stream=name, seq=reached + 1)
    oldest = Event.objects.filter(first).order_by("timestamp").values_list("timestamp", flat=True).first()
    return Lag(
        events=sum(head - reached for reached, head in behind.values()),
        oldest_seconds=max(0.0, (now - oldest).total_seconds()) if oldest else None,
    )
