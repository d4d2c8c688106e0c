"""Which events of the log somebody asks for, and the SQL that finds them.

The log holds each payload as compact JSON, so a field with its value is one piece of text, and looked for as such: what
databases have for JSON differs, and PostgreSQL's refuses a whole payload for one `\\u0000` in it, which a device may
report. Texts within a payload have their quotes escaped, and so are never taken for fields.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from fl import feed
from fl.feed import SEVERITIES
from fl.models import Event
from fl.visibility import Principal, streams_for


@dataclass(frozen=True)
class EventFilter:
    """Which events are asked for; what is empty does not matter.

    Attributes:
        severity: one of `fl.feed.SEVERITIES`.
        kind: the name of an event.
        run_id: events of its stream, and others that name it.
        device_id: events that name it, and for admins those of its stream.
        text: what the stored payload holds, in upper or lower case.
        since: the first moment, itself included.
        until: the first moment that is too late.
        raw: events that the feed does not tell, too.
    """

    severity: str = ""
    kind: str = ""
    run_id: int | None = None
    device_id: int | None = None
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    raw: bool = False


def matching(principal: Principal, wanted: EventFilter) -> QuerySet[Event]:
    """Return the events that are asked for, of those that this one may see, in no order."""
    found = Event.objects.filter(stream__in=streams_for(principal).values("name"))
    if not wanted.raw or wanted.severity:
        found = found.filter(_told(SEVERITIES.get(wanted.severity)))
    if wanted.kind:
        found = found.filter(event=wanted.kind)
    if wanted.run_id is not None:
        found = found.filter(Q(stream=f"run:{wanted.run_id}") | _names("run_id", wanted.run_id))
    if wanted.device_id is not None:
        found = found.filter(Q(stream=f"device:{wanted.device_id}") | _names("device_id", wanted.device_id))
    if wanted.text:
        found = found.filter(data__icontains=wanted.text)
    if wanted.since is not None:
        found = found.filter(timestamp__gte=wanted.since)
    if wanted.until is not None:
        found = found.filter(timestamp__lt=wanted.until)
    return found


def _told(tones: Collection[str] | None) -> Q:
    """Return the condition of events whose line in the feed has one of these tones, or any where None is given."""
    wanted = {key for key, line in feed.LINES.items() if line and (tones is None or line.tone in tones)}
    told = Q(pk__in=[])
    for key in sorted(wanted):
        of_key = _of_key(key)
        # The longest key that fits is the event's.
        for longer in sorted(feed.LINES.keys() - wanted):
            if longer.startswith(f"{key}."):
                of_key &= ~_of_key(longer)
        told |= of_key
    return told


def _of_key(key: str) -> Q:
    event, *values = key.split(".")
    condition = Q(event=event)
    for field, value in zip(feed.KEYS[event], values, strict=False):
        condition &= Q(data__contains=f'"{field}":"{value}"')
    return condition


def _names(field: str, number: int) -> Q:
    return Q(data__contains=f'"{field}":{number},') | Q(data__contains=f'"{field}":{number}}}')
