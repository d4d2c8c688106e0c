"""Reads the event log for connections: in pages that readers share, since whoever is behind asks for the same ones."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, partial

import msgspec
from django.db.models import Q

from edge.protocol.server import LoggedEvent, encode_frame, format_timestamp
from fl.models import Event, Stream
from realtime.database import query
from realtime.frames import Frame
from realtime.limits import CHUNK_EVENTS
from realtime.messages import Labels

KEPT_BYTES = 4 * 1024 * 1024
"""About how much of the log is kept: some five thousand usual events. The newest page is kept whatever it takes."""


@dataclass(frozen=True)
class StreamHead:
    """Where a stream stands, and what decides who may see it."""

    name: str
    epoch: str
    head: int
    task: str
    public: bool
    in_trash: bool = False

    @property
    def labels(self) -> Labels:
        """What decides, beside its name, who may see it."""
        return Labels(self.task, self.public, self.in_trash)


class LogEntry:
    """An event as the log keeps it, ready to be sent alone (`frame`) or within `recent_events` (`logged`)."""

    def __init__(self, stream: str, epoch: str, seq: int, event: str, data: str, timestamp: str) -> None:
        self.stream = stream
        self.epoch = epoch
        self.seq = seq
        self._event = event
        self._data = data.encode()
        self._timestamp = timestamp

    @cached_property
    def frame(self) -> Frame:
        """The frame, letter for letter as it went out when the event was recorded."""
        return Frame(
            encode_frame(
                self._event,
                self._data,
                timestamp=self._timestamp,
                stream=self.stream,
                seq=self.seq,
                epoch=self.epoch,
            )
        )

    @cached_property
    def logged(self) -> LoggedEvent:
        """The event within `recent_events`."""
        return LoggedEvent(seq=self.seq, event=self._event, data=msgspec.Raw(self._data), timestamp=self._timestamp)

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory, once it was sent to somebody: its data, and its frame."""
        return 2 * (len(self._data) + 120)


class LogPages:
    """The log in pages of CHUNK_EVENTS; what was read of them never changes and is kept, only what follows is read."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int], list[LogEntry]] = OrderedDict()
        self.size = 0
        """About how many bytes are kept."""
        self._reading: dict[tuple[str, str, int], asyncio.Task[list[LogEntry]]] = {}

    async def after(self, stream: str, epoch: str, seq: int) -> list[LogEntry]:
        """Return the events that follow `seq`, in order, up to the end of their page; none at the stream's head."""
        key = (stream, epoch, seq // CHUNK_EVENTS)
        page = self._kept.get(key, [])
        if page:
            self._kept.move_to_end(key)
        if len(page) == CHUNK_EVENTS:
            return [entry for entry in page if entry.seq > seq]
        joined = self._is_read_now(key)
        found = [entry for entry in await self._read(key) if entry.seq > seq]
        if joined and not found:
            # The read that was under way may have begun before what the caller knows of was committed.
            found = [entry for entry in await self._read(key) if entry.seq > seq]
        return found

    def _is_read_now(self, key: tuple[str, str, int]) -> bool:
        # One that is done is of no use to who comes now: it may be older than what brings them.
        return key in self._reading and not self._reading[key].done()

    async def _read(self, key: tuple[str, str, int]) -> list[LogEntry]:
        if not self._is_read_now(key):
            begun = asyncio.ensure_future(self._read_on(key))
            begun.add_done_callback(partial(self._forget, key))
            self._reading[key] = begun
        # One reader that goes away must not take the page from the others.
        return await asyncio.shield(self._reading[key])

    async def _read_on(self, key: tuple[str, str, int]) -> list[LogEntry]:
        stream, epoch, number = key
        known = self._kept.get(key, [])
        after = known[-1].seq if known else number * CHUNK_EVENTS
        news = await query(read_events, stream, epoch, after=after, to=(number + 1) * CHUNK_EVENTS)
        if news:
            self._keep(key, [*known, *news])
        return [*known, *news]

    def _keep(self, key: tuple[str, str, int], page: list[LogEntry]) -> None:
        self.size += _size_of(page) - _size_of(self._kept.pop(key, []))
        self._kept[key] = page
        while self.size > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self.size -= _size_of(oldest)

    def _forget(self, key: tuple[str, str, int], task: asyncio.Task[list[LogEntry]]) -> None:
        # A newer read may have taken its place before this was called.
        if self._reading.get(key) is task:
            del self._reading[key]


def _size_of(page: list[LogEntry]) -> int:
    return sum(entry.size for entry in page)


def read_events(stream: str, epoch: str, *, after: int, to: int) -> list[LogEntry]:
    """Return the events of a stream after one number and up to another, as far as they are there."""
    rows = Event.objects.filter(stream_id=stream, seq__gt=after, seq__lte=to).order_by("seq")
    return [
        LogEntry(stream, epoch, number, event, data, format_timestamp(timestamp))
        for number, event, data, timestamp in rows.values_list("seq", "event", "data", "timestamp")
    ]


def read_heads(device_streams: frozenset[str]) -> list[StreamHead]:
    """Return where all streams stand, except those of devices that are not named."""
    rows = Stream.objects.filter(~Q(name__startswith="device:") | Q(name__in=device_streams))
    return [StreamHead(*row) for row in rows.values_list("name", "epoch", "head", "task", "public", "in_trash")]
