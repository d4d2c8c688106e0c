"""What the tabs of a run's page show: what all of them begin with, its models, its events, who took part in it."""

from dataclasses import dataclass

import msgspec
from django.db.models import Count

from edge.protocol.server import FlStatusUpdate
from fl.events import SYSTEM
from fl.feed import Told, tell
from fl.models import Assignment, Device, Event, GlobalModel, Run
from fl.payloads import run_status
from fl.queries.positions import Positions, positions_of
from fl.queries.runs import visible_run
from fl.snapshots import consistent_read
from fl.visibility import Principal

MODELS_A_PAGE = 25
EVENTS_A_PAGE = 50
WINDOWS = (300, 6000)
"""How many numbers of a stream are looked through for a page of events: at first, and then once more if need be."""

SEVERITIES = {"warning": ("warn", "bad"), "error": ("bad",)}
"""The least severity that is asked for → the tones of its lines; anything else asks for all."""
ALL_DEVICES = "all"


@dataclass(frozen=True)
class Head:
    """What every tab of a run begins with: the run, its state, and where its streams stand."""

    run: Run
    status: FlStatusUpdate
    positions: Positions


def head_of(principal: Principal, run_id: int) -> Head:
    """Read what a tab begins with; within the `consistent_read` of what else the tab shows.

    Raises:
        NotFound: there is no such run, or none that this one may see.
    """
    run = visible_run(principal, run_id)
    return Head(run=run, status=run_status(run), positions=positions_of(principal, [run]))


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ModelPage:
    """A page of a run's published versions, newest first."""

    head: Head
    models: list[GlobalModel]
    total: int


def model_page(principal: Principal, run_id: int, *, offset: int = 0) -> ModelPage:
    """Read a page of a run's published versions.

    Raises:
        NotFound: as `head_of`.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        models = GlobalModel.objects.filter(run=head.run, published_at__isnull=False).select_related("round")
        return ModelPage(
            head=head,
            models=list(models.order_by("-version")[offset : offset + MODELS_A_PAGE]),
            total=models.count(),
        )


# ── configuration ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Configuration:
    """A run with the software that took part in it: version → devices, as each last connected."""

    head: Head
    versions: list[tuple[str, int]]


def configuration(principal: Principal, run_id: int) -> Configuration:
    """Read a run and which versions its devices have.

    Raises:
        NotFound: as `head_of`.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        took_part = Assignment.objects.filter(round__run=head.run).order_by().values("device")
        counted = Device.objects.filter(pk__in=took_part).order_by("edge_version").values("edge_version")
        versions = counted.annotate(devices=Count("pk")).values_list("edge_version", "devices")
        return Configuration(head=head, versions=list(versions))


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EventFilter:
    """Which events of a run.

    Attributes:
        severity: the least one, a key of `SEVERITIES`; "" for all.
        text: what the line has to hold, whatever its case.
        device: None for the run's own stream, which names no device; else what the devices did, of one or of all.
    """

    severity: str = ""
    text: str = ""
    device: int | str | None = None

    def keeps(self, told: Told) -> bool:
        """Say whether a told event is among those wanted."""
        tones = SEVERITIES.get(self.severity)
        if tones is not None and told.tone not in tones:
            return False
        return self.text.casefold() in f"{told.title} {told.detail}".casefold()


@dataclass(frozen=True)
class EventLine:
    """An event as it is told, and its data as they were sent."""

    told: Told
    event: str
    data: str


@dataclass(frozen=True)
class EventPage:
    """A page of a run's events, newest first; `older` is the `before` that goes on, None at the beginning."""

    head: Head
    lines: list[EventLine]
    older: int | None
    devices: list[tuple[int, str]]


def event_page(principal: Principal, run_id: int, wanted: EventFilter, *, before: int | None = None) -> EventPage:
    """Read a page of a run's events from one stream: the run's own, or what the server's says of its devices.

    Raises:
        NotFound: as `head_of`.
    """
    with consistent_read():
        head = head_of(principal, run_id)
        stream = head.run.stream if wanted.device is None else SYSTEM
        position = head.positions.get(stream)
        start = position.seq + 1 if position else 1
        lines, older = _look_through(stream, head.run, wanted, min(before, start) if before else start)
        took_part = Assignment.objects.filter(round__run=head.run).order_by().values("device")
        devices = Device.objects.filter(pk__in=took_part).order_by("name").values_list("pk", "name")
        return EventPage(head=head, lines=lines, older=older, devices=list(devices))


def _look_through(stream: str, run: Run, wanted: EventFilter, before: int) -> tuple[list[EventLine], int | None]:
    """Return a page of lines below a seq, and where the next page begins."""
    lines: list[EventLine] = []
    for window in WINDOWS:
        floor = max(1, before - window)
        lines += _lines_between(stream, run, wanted, floor, before)
        before = floor
        if len(lines) > EVENTS_A_PAGE:
            return lines[:EVENTS_A_PAGE], lines[EVENTS_A_PAGE - 1].told.seq
    more = before > 1 and Event.objects.filter(stream=stream, seq__lt=before).exists()
    return lines, before if more else None


def _lines_between(stream: str, run: Run, wanted: EventFilter, floor: int, before: int) -> list[EventLine]:
    events = Event.objects.filter(stream=stream, seq__gte=floor, seq__lt=before).order_by("seq")
    if wanted.device is not None:
        # The data are compact JSON in which a text's own quotes are escaped: this finds the field and nothing else.
        events = events.filter(data__contains=f'"run_id":{run.pk},')
    if isinstance(wanted.device, int):
        events = events.filter(data__contains=f'"device_id":{wanted.device},')
    by_seq = {event.seq: event for event in events}
    return [_line(told, by_seq[told.seq]) for told in tell(by_seq.values()) if wanted.keeps(told)]


def _line(told: Told, event: Event) -> EventLine:
    return EventLine(told=told, event=event.event, data=_pretty(event.data))


def _pretty(data: str) -> str:
    return msgspec.json.format(data, indent=2)
