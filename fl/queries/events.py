"""Events as pages tell them."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from fl.events import SYSTEM
from fl.models import Event, Run
from fl.visibility import Principal, audience_stream, streams_for

FEED_EVENTS = 160
"""How many events are read for a feed; not each of them is told."""


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
