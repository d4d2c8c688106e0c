"""Events as pages tell them."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.db.models import Q, QuerySet

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
EVENTS_AT_ONCE = 5000
"""How many of the log are looked through by one query. What a filter wants is in no index, so that a query over all of
the log would take the longer the fewer there are."""
LOOKING_SECONDS = 0.5
"""After so long no further query is begun for a page: it tells how far it came."""
CHOICES = 50
"""How many of the newest runs, and of the devices by name, a form offers."""


def feed_events(positions: Positions, run: Run | None) -> list[Event]:
    """Read the newest events of a run and of the whole server, oldest first.

    Args:
        positions: where the streams stand that one may see, as of the same moment.
    """
    names = [SYSTEM, audience_stream("dashboard"), audience_stream("general"), *([run.stream] if run else [])]
    # By their places: databases would else sort all that these streams have had.
    newest = Q(pk__in=[])
    for name in names:
        if name in positions:
            newest |= Q(stream=name, seq__gt=positions[name].seq - FEED_EVENTS)
    return _oldest_first(Event.objects.filter(newest).order_by("-timestamp", "-pk")[:FEED_EVENTS])


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
        reached: the moment of the newest event that was not looked at, where time ran out before the page was full.
        runs: the newest runs, to choose from: number → name.
        devices: names of devices, to choose from.
        positions: where the streams stand that are followed unasked.
    """

    lines: list[EventLine]
    newer: int | None
    older: int | None
    reached: datetime | None
    runs: dict[int, str]
    devices: list[str]
    positions: Positions


def page_of_events(principal: Principal, wanted: EventFilter, place: Place) -> EventPage:
    """Read one page of the events that are asked for, newest first.

    A place that is none any more is the newest one.
    """
    with consistent_read():
        found = _page_at(principal, wanted, place)
        runs = dict(runs_for(principal).order_by("-pk").values_list("pk", "name")[:CHOICES])
        if wanted.run_id is not None:
            runs.setdefault(wanted.run_id, "")
        devices = Device.objects.order_by("name").values_list("name", flat=True)
        open_runs = runs_for(principal).filter(ended_at__isnull=True).only("pk")
        return EventPage(
            lines=found.lines,
            newer=found.newer,
            older=found.older,
            reached=found.reached,
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
    newest = _newest_below(None)
    reached = 0
    while newest is not None and (first := _oldest_above(reached)) is not None and first.pk <= newest.pk:
        reached = min(first.pk + EVENTS_AT_ONCE - 1, newest.pk)
        yield from list(found.filter(pk__gte=first.pk, pk__lte=reached).order_by("pk"))


def _newest_below(row: int | None) -> Event | None:
    """Return the newest event of the log before a row, whatever it tells; only its row and its moment are known."""
    below = Event.objects.all() if row is None else Event.objects.filter(pk__lt=row)
    return below.order_by("-pk").only("timestamp").first()


def _oldest_above(row: int) -> Event | None:
    return Event.objects.filter(pk__gt=row).order_by("pk").only("timestamp").first()


def device_named(text: str) -> int | None:
    """Return the number of a device that is given by number or by name; 0, which none has, where there is none."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return Device.objects.filter(name=text).values_list("pk", flat=True).first() or 0


@dataclass(frozen=True)
class _Found:
    """Lines of a page, and where it stands, as `EventPage` tells it."""

    lines: list[EventLine]
    newer: int | None
    older: int | None
    reached: datetime | None = None


def _page_at(principal: Principal, wanted: EventFilter, place: Place) -> _Found:
    found = matching(principal, wanted)
    if place.after is not None:
        page = _page_after(found, wanted, place.after)
        if page is not None:
            return page
        # So few are newer that the first page has them.
        place = Place()
    first = _event_at(principal, place.at)
    before = place.before if first is None else first.pk + 1
    events, rest = _look_back(found, before)
    lines = _lines(events[::-1], wanted)
    if first is not None and not any(line.event.pk == first.pk for line in lines):
        lines.insert(0, _alone(first))
    newer = None if before is None else before - 1
    if len(lines) > LINES_A_PAGE:
        lines = lines[:LINES_A_PAGE]
        return _Found(lines, newer, older=lines[-1].event.pk)
    if len(events) == EVENTS_FOR_A_PAGE:
        return _Found(lines, newer, older=events[-1].pk)
    return _Found(lines, newer, older=rest.pk + 1, reached=rest.timestamp) if rest else _Found(lines, newer, older=None)


def _page_after(found: QuerySet[Event], wanted: EventFilter, after: int) -> _Found | None:
    """Return the page that ends above a row; None where that is no full page, though all newer ones were looked at."""
    events, reached = _look_forth(found, after)
    lines = _lines(events, wanted)
    if len(lines) > LINES_A_PAGE:
        lines = lines[-LINES_A_PAGE:]
        return _Found(lines, newer=lines[0].event.pk, older=after + 1)
    if reached is None:
        return None
    return _Found(lines, newer=reached, older=after + 1)


def _look_back(found: QuerySet[Event], before: int | None) -> tuple[list[Event], Event | None]:
    """Return the newest events before a row, newest first, and the newest of the log that was not looked at, if any."""
    deadline = time.monotonic() + LOOKING_SECONDS
    events: list[Event] = []
    top = _newest_below(before)
    while top is not None:
        lowest = top.pk - EVENTS_AT_ONCE + 1
        piece = found.filter(pk__gte=lowest, pk__lte=top.pk).order_by("-pk")
        events += piece[: EVENTS_FOR_A_PAGE - len(events)]
        if len(events) == EVENTS_FOR_A_PAGE:
            break
        top = _newest_below(lowest) if lowest > 1 else None
        if time.monotonic() >= deadline:
            break
    return events, top


def _look_forth(found: QuerySet[Event], after: int) -> tuple[list[Event], int | None]:
    """Return the oldest events after a row, oldest first, and the last row looked at; None where that is the newest."""
    deadline = time.monotonic() + LOOKING_SECONDS
    events: list[Event] = []
    bottom = _oldest_above(after)
    while bottom is not None:
        last = bottom.pk + EVENTS_AT_ONCE - 1
        piece = found.filter(pk__gte=bottom.pk, pk__lte=last).order_by("pk")
        events += piece[: EVENTS_FOR_A_PAGE - len(events)]
        if len(events) == EVENTS_FOR_A_PAGE:
            return events, events[-1].pk
        bottom = _oldest_above(last)
        if bottom is not None and time.monotonic() >= deadline:
            return events, last
    return events, None


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
