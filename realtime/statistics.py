"""Figures about connections: each process writes its own every few seconds; readers sum over those that live."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
from django.conf import settings

from realtime.groups import Kind
from realtime.hub import Hub
from realtime.models import ServerProcess

FORGET_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Figures:
    """What a process knows of its connections."""

    connections: dict[str, int]
    queued_frames: int
    queued_bytes: int
    longest_queue: int
    behind: int
    events_per_second: float
    frames_per_second: float
    bytes_sent: int
    bytes_received: int


class ConnectionStatistics(msgspec.Struct, kw_only=True, frozen=True):
    """The figures of all live processes together."""

    connections: dict[str, int]
    total: int
    queued_frames: int
    queued_bytes: int
    longest_queue: int
    behind: int
    events_per_second: float
    """The largest of any process, since each hears of all events."""
    frames_per_second: float
    bytes_sent: int
    """WebSocket bytes, whole frames, since each process began."""
    bytes_received: int
    processes: int


@dataclass
class Rates:
    """Turns counters that only rise into rates since they were last asked for."""

    at: float
    frames: int = 0
    events: int = 0
    newest: tuple[float, float] = field(default=(0.0, 0.0))

    def since_last(self, frames: int, events: int, now: float) -> tuple[float, float]:
        """Return frames and events a second; asked twice within a second, the same as before."""
        seconds = now - self.at
        if seconds >= 1:
            self.newest = ((frames - self.frames) / seconds, (events - self.events) / seconds)
            self.at, self.frames, self.events = now, frames, events
        return self.newest


def figures_of(hub: Hub, rates: Rates, now: float) -> Figures:
    """Count what a hub has open and waiting."""
    connections = hub.connections()
    queues = [connection.queued for connection in connections]
    traffic = [connection.traffic() for connection in connections]
    frames_per_second, events_per_second = rates.since_last(hub.counters.frames, hub.counters.events, now)
    return Figures(
        connections={kind.value: len(hub.connections(kind)) for kind in Kind},
        queued_frames=sum(frames for frames, _ in queues),
        queued_bytes=sum(size for _, size in queues),
        longest_queue=max((frames for frames, _ in queues), default=0),
        behind=sum(connection.is_behind for connection in connections),
        events_per_second=round(events_per_second, 2),
        frames_per_second=round(frames_per_second, 2),
        bytes_sent=hub.counters.bytes_sent + sum(sent for sent, _ in traffic),
        bytes_received=hub.counters.bytes_received + sum(received for _, received in traffic),
    )


def write(*, instance: str, started_at: datetime, figures: Figures, now: datetime) -> list[str]:
    """Write the row of one process, forget those that have long been silent, and return which others live."""
    ServerProcess.objects.update_or_create(
        instance=instance,
        defaults={
            "started_at": started_at,
            "heard_at": now,
            "lease_until": now + lease(),
            "connections": figures.connections,
            "queued_frames": figures.queued_frames,
            "queued_bytes": figures.queued_bytes,
            "longest_queue": figures.longest_queue,
            "behind": figures.behind,
            "events_per_second": figures.events_per_second,
            "frames_per_second": figures.frames_per_second,
            "bytes_sent": figures.bytes_sent,
            "bytes_received": figures.bytes_received,
        },
    )
    ServerProcess.objects.filter(lease_until__lt=now - FORGET_AFTER).delete()
    others = ServerProcess.objects.filter(lease_until__gt=now).exclude(instance=instance)
    return list(others.values_list("instance", flat=True))


def lease() -> timedelta:
    """Return how long a process is believed to live after it has written its row; three turns may fail."""
    return 3.5 * timedelta(seconds=settings.QFLARE_STATISTICS_SECONDS)


def forget(instance: str) -> None:
    """Remove the row of a process that ends."""
    ServerProcess.objects.filter(instance=instance).delete()


def connection_statistics(now: datetime) -> ConnectionStatistics:
    """Sum the figures of all processes that live."""
    rows = list(ServerProcess.objects.filter(lease_until__gt=now))
    connections = {kind.value: sum(row.connections.get(kind.value, 0) for row in rows) for kind in Kind}
    return ConnectionStatistics(
        connections=connections,
        total=sum(connections.values()),
        queued_frames=sum(row.queued_frames for row in rows),
        queued_bytes=sum(row.queued_bytes for row in rows),
        longest_queue=max((row.longest_queue for row in rows), default=0),
        behind=sum(row.behind for row in rows),
        events_per_second=max((row.events_per_second for row in rows), default=0.0),
        frames_per_second=sum(row.frames_per_second for row in rows),
        bytes_sent=sum(row.bytes_sent for row in rows),
        bytes_received=sum(row.bytes_received for row in rows),
        processes=len(rows),
    )
