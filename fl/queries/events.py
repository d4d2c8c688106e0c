"""Events as pages tell them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.db.models import QuerySet

from edge.protocol.server import encode_frame
from fl import feed
from fl.events import SYSTEM
from fl.models import Device, Event, Run
from fl.queries.event_filters import EventFilter, matching
from fl.queries.positions import Positions, positions_of
from fl.snapshots import consistent_read
from fl.visibility import Principal, audience_stream, runs_for, streams_for

FEED_EVENTS = 160
"""How many events are read for a feed; not each of them is told."""
LINES_A_PAGE = 50
EVENTS_FOR_A_PAGE = 3 * LINES_A_PAGE
"""How many events are read for a page: of those that read alike, one is told."""
EVENTS_AT_ONCE = 500
"""How many are read at once for an export."""
CHOICES = 50
"""How many of the newest runs, and of the devices by name, a form offers."""


def feed_events(principal: Principal, run: Run | None) -> list[Event]:
    """Read the newest events of a run and of the whole server, oldest first."""
    names = [SYSTEM, audience_stream("dashboard"), audience_stream("general"), *([run.stream] if run else [])]
    visible = streams_for(principal).filter(name__in=names).values("name")
    newest = Event.objects.filter(stream__in=visible).order_by("-timestamp", "-pk")[:FEED_EVENTS]
    return _oldest_first(newest)


def _oldest_first(newest_first: Iterable[Event]) -> list[Event]:
    # Within a stream the order is that of seq; between streams, that of the server's clock.
    by_stream: dict[str, list[Event]] = defaultdict(list)
    for event in newest_first:
        by_stream[event.stream_id].append(event)
    ordered = [sorted(events, key=lambda event: event.seq) for events in by_stream.values()]
    return sorted((event for events in ordered for event in events), key=_moment)


def _moment(event: Event) -> datetime:
    return event.timestamp


# ── all events, page by page ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EventLine:
    """An event of the log, and how it is told: one that the feed does not tell, by its name."""

    event: Event
    told: feed.Told

    @property
    def key(self) -> str:
        """Its place in the log, as addresses have it: `run:4-17`."""
        return f"{self.event.stream_id}-{self.event.seq}"

    @property
    def status(self) -> tuple[str, str] | None:
        """Whose status it tells and how that reads, if it tells one."""
        return feed.reading_of(self.event.event, msgspec.json.decode(self.event.data))

    @property
    def frame(self) -> str:
        """The frame in which it was sent, its `epoch` aside."""
        return encode_frame(
            self.event.event,
            self.event.data.encode(),
            timestamp=self.event.timestamp,
            stream=self.event.stream_id,
            seq=self.event.seq,
        )

    @property
    def pretty(self) -> str:
        """The same frame, over several lines."""
        return msgspec.json.format(self.frame, indent=2)


@dataclass(frozen=True)
class Place:
    """Where in the log a page begins; without anything, at the newest event.

    Attributes:
        before: events older than this row.
        after: events newer than this row.
        at: stream and seq of the event that comes first.
    """

    before: int | None = None
    after: int | None = None
    at: tuple[str, int] | None = None


@dataclass(frozen=True)
class EventPage:
    """Some events, newest first, and where those before and after them are.

    Attributes:
        newer: the row after which newer ones are; None on the first page.
        older: the row before which older ones are; None on the last page.
        runs: the newest runs, to choose from: number → name.
        devices: names of devices, to choose from.
        positions: where the streams stand that are followed unasked.
    """

    lines: list[EventLine]
    newer: int | None
    older: int | None
    runs: dict[int, str]
    devices: list[str]
    positions: Positions


def page_of_events(principal: Principal, wanted: EventFilter, place: Place) -> EventPage:
    """Read one page of the events that are asked for, newest first.

    A place that is none any more is the newest one.
    """
    with consistent_read():
        lines, newer, older = _page_at(principal, wanted, place)
        runs = dict(runs_for(principal).order_by("-pk").values_list("pk", "name")[:CHOICES])
        if wanted.run_id is not None:
            runs.setdefault(wanted.run_id, "")
        devices = Device.objects.order_by("name").values_list("name", flat=True)
        open_runs = runs_for(principal).filter(ended_at__isnull=True).only("pk")
        return EventPage(
            lines=lines,
            newer=newer,
            older=older,
            runs=runs,
            devices=list(devices[:CHOICES]),
            positions=positions_of(principal, open_runs),
        )


def all_events(principal: Principal, wanted: EventFilter) -> Iterator[EventLine]:
    """Read all events that are asked for, oldest first; those that come meanwhile are left out."""
    events = _piece_by_piece(matching(principal, wanted))
    if wanted.raw:
        return map(_alone, events)
    return (EventLine(event, told) for event, told in feed.tell_each(events) if told is not None)


def _piece_by_piece(found: QuerySet[Event]) -> Iterator[Event]:
    # Each piece is a query of its own: no transaction, and no cursor of one thread, stays open while somebody reads.
    newest = found.order_by("-pk").values_list("pk", flat=True).first() or 0
    reached = 0
    while reached < newest:
        events = list(found.filter(pk__gt=reached, pk__lte=newest).order_by("pk")[:EVENTS_AT_ONCE])
        yield from events
        reached = events[-1].pk if events else newest


def device_named(text: str) -> int | None:
    """Return the number of a device that is given by number or by name; 0, which none has, where there is none."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return Device.objects.filter(name=text).values_list("pk", flat=True).first() or 0


def _page_at(principal: Principal, wanted: EventFilter, place: Place) -> tuple[list[EventLine], int | None, int | None]:
    """Return a page's lines, the row after which newer ones are, and that before which older ones are."""
    found = matching(principal, wanted)
    if place.after is not None:
        events = list(found.filter(pk__gt=place.after).order_by("pk")[:EVENTS_FOR_A_PAGE])
        lines = _lines(events, wanted)
        if len(lines) > LINES_A_PAGE or len(events) == EVENTS_FOR_A_PAGE:
            lines = lines[-LINES_A_PAGE:]
            newest, oldest = (lines[0].event, lines[-1].event) if lines else (events[-1], events[0])
            return lines, newest.pk, oldest.pk
        # So few are newer that the first page has them.
        place = Place()
    first = _event_at(principal, place.at)
    before = place.before if first is None else first.pk + 1
    if before is not None:
        found = found.filter(pk__lt=before)
    events = list(found.order_by("-pk")[:EVENTS_FOR_A_PAGE])
    lines = _lines(events[::-1], wanted)
    if first is not None and not any(line.event.pk == first.pk for line in lines):
        lines.insert(0, _alone(first))
    older = events[-1].pk if len(events) == EVENTS_FOR_A_PAGE else None
    if len(lines) > LINES_A_PAGE:
        lines = lines[:LINES_A_PAGE]
        older = lines[-1].event.pk
    newer = None if before is None else before - 1
    return lines, newer, older


def _event_at(principal: Principal, at: tuple[str, int] | None) -> Event | None:
    if at is None:
        return None
    stream, seq = at
    return Event.objects.filter(stream__in=streams_for(principal).filter(name=stream).values("name"), seq=seq).first()


def _lines(oldest_first: Sequence[Event], wanted: EventFilter) -> list[EventLine]:
    """Tell events, newest first."""
    if wanted.raw:
        return [_alone(event) for event in reversed(oldest_first)]
    return [EventLine(event, told) for event, told in feed.tell_each(oldest_first) if told is not None][::-1]


def _alone(event: Event) -> EventLine:
    (_, told) = next(feed.tell_each([event]))
    unnamed = feed.Told(
        stream=event.stream_id,
        seq=event.seq,
        timestamp=event.timestamp,
        title=event.event,
        detail="",
        tone="plain",
        icon="info",
    )
    return EventLine(event, told or unnamed)
