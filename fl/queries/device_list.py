"""The list of devices: which of them are asked for, in which order, and how many there are of each kind."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from django.db.models import Count, OuterRef, Q, Subquery

from edge.protocol.server import DeviceStatus, TrainingProgress
from fl import feed
from fl.lifecycle import OPEN_ASSIGNMENTS, DeviceState
from fl.models import Assignment, Device, Update
from fl.models.update import UpdateState
from fl.payloads import assignment_progress
from fl.queries.devices import device_rows, open_assignments, reasons_to_look, statuses, with_outcomes
from fl.queries.positions import Positions, positions_of
from fl.snapshots import consistent_read
from fl.visibility import Principal

DEVICES_A_PAGE = 50


class Show(StrEnum):
    """Which devices."""

    ALL = "all"
    ATTENTION = "attention"
    TRAINING = "training"
    ONLINE = "online"
    OFFLINE = "offline"
    PENDING = "pending"
    REVOKED = "revoked"


class Sort(StrEnum):
    """By what they are ordered; those that are equal by name."""

    NAME = "name"
    STATE = "state"
    HEARD = "heard"
    EXAMPLES = "examples"
    ROUNDS = "rounds"


@dataclass(frozen=True)
class Wish:
    """What is asked of the list."""

    show: Show = Show.ALL
    text: str = ""
    """Part of a name, tag, version or task, in upper or lower case."""
    tag: str = ""
    sort: Sort = Sort.NAME
    descending: bool = False
    page: int = 1


@dataclass(frozen=True)
class DeviceLine:
    """One device as the list shows it."""

    status: DeviceStatus
    fingerprint: str
    attention: tuple[str, ...]
    """Why a person should look at it."""
    work: TrainingProgress | None = None
    """Its part of the round that it is at."""
    rounds: int = 0
    """How many rounds it was selected for."""
    accuracy: float | None = None
    """The local accuracy that its newest accepted update reported."""

    @property
    def key(self) -> str:
        """The key of the word by which it is shown."""
        return feed.device_key(self.status)

    @property
    def examples(self) -> int:
        """How many examples it offers, of all tasks."""
        return sum(self.status.num_examples.values())


@dataclass(frozen=True)
class DeviceList:
    """A page of the list, and what stands around it."""

    lines: list[DeviceLine]
    matching: list[DeviceLine]
    """All that match, on whichever page, by name."""
    counts: dict[Show, int]
    """How many of those that the text and the tag leave are of each kind."""
    page: int
    pages: int
    tags: list[str]
    """All tags that devices have."""
    devices: list[DeviceStatus]
    work: list[TrainingProgress]
    positions: Positions = field(default_factory=dict)


def device_list(principal: Principal, wish: Wish, now: datetime) -> DeviceList:
    """Read the devices that match, a page of them with all that the table shows."""
    with consistent_read():
        lines = _lines(now)
        found = [line for line in lines if _is_found(line, wish)]
        matching = [line for line in found if HOLDS[wish.show](line)]
        pages = max(1, -(-len(matching) // DEVICES_A_PAGE))
        page = min(max(1, wish.page), pages)
        first = (page - 1) * DEVICES_A_PAGE
        if wish.sort is Sort.ROUNDS:
            matching = _with_rounds(matching)
        shown = _in_order(matching, wish)[first : first + DEVICES_A_PAGE]
        return DeviceList(
            lines=_with_accuracy(_with_rounds(shown)),
            matching=matching,
            counts={show: sum(map(holds, found)) for show, holds in HOLDS.items()},
            page=page,
            pages=pages,
            tags=sorted({tag for line in lines for tag in line.status.tags}, key=str.casefold),
            devices=[line.status for line in lines],
            work=[line.work for line in lines if line.work is not None],
            positions=positions_of(principal, []),
        )


HOLDS: dict[Show, Callable[[DeviceLine], bool]] = {
    Show.ALL: lambda line: True,
    Show.ATTENTION: lambda line: bool(line.attention),
    Show.TRAINING: lambda line: line.key in OPEN_ASSIGNMENTS,
    Show.ONLINE: lambda line: line.status.state == DeviceState.ACTIVE and line.status.presence == "online",
    Show.OFFLINE: lambda line: line.status.state == DeviceState.ACTIVE and line.status.presence == "offline",
    Show.PENDING: lambda line: line.status.state == DeviceState.PENDING,
    Show.REVOKED: lambda line: line.status.state == DeviceState.REVOKED,
}

_WORDS = list(feed.DEVICE_WORDS)
_NEVER = datetime.min.replace(tzinfo=UTC)
_ORDERS: dict[Sort, Callable[[DeviceLine], object]] = {
    Sort.NAME: lambda line: line.status.name.casefold(),
    Sort.STATE: lambda line: (not line.attention, _WORDS.index(line.key)),
    Sort.HEARD: lambda line: line.status.last_heard_at or _NEVER,
    Sort.EXAMPLES: lambda line: line.examples,
    Sort.ROUNDS: lambda line: line.rounds,
}


def _lines(now: datetime) -> list[DeviceLine]:
    """Read all devices, by name: what a page needs of each to count and to choose."""
    devices = list(with_outcomes(device_rows()).order_by("name"))
    assignments = open_assignments()
    at_work = {row.device_id: assignment_progress(row, None) for row in assignments}
    return [
        DeviceLine(
            status=status,
            fingerprint=device.fingerprint,
            attention=reasons_to_look(device, status, now),
            work=at_work.get(device.pk),
        )
        for device, status in zip(devices, statuses(devices, assignments), strict=True)
    ]


def _is_found(line: DeviceLine, wish: Wish) -> bool:
    device = line.status
    if wish.tag and wish.tag not in device.tags:
        return False
    wanted = wish.text.casefold()
    return any(wanted in text.casefold() for text in (device.name, device.edge_version, *device.tags, *device.tasks))


def _in_order(lines: Iterable[DeviceLine], wish: Wish) -> list[DeviceLine]:
    by_name = sorted(lines, key=lambda line: line.status.name.casefold())
    order = _ORDERS[wish.sort]
    return sorted(by_name, key=order, reverse=wish.descending)  # type: ignore[arg-type]  # each order's are comparable


def _with_rounds(lines: Sequence[DeviceLine]) -> list[DeviceLine]:
    # By device alone, so that an index has all of the answer; of a page's devices, or of all at once.
    few = Q(device__in=_numbers(lines)) if len(lines) <= DEVICES_A_PAGE else Q()
    rounds = _counted(few)
    # For the same reason what is in the trash, which is little, is counted by itself.
    rounds.subtract(_counted(few & Q(round__run__deleted_at__isnull=False)))
    return [replace(line, rounds=rounds[line.status.device_id]) for line in lines]


def _counted(condition: Q) -> Counter[int]:
    rows = Assignment.objects.filter(condition).order_by().values_list("device").annotate(rounds=Count("pk"))
    return Counter(dict(rows))


def _with_accuracy(lines: Sequence[DeviceLine]) -> list[DeviceLine]:
    accepted = Update.objects.filter(assignment__device=OuterRef("pk"), state=UpdateState.ACCEPTED)
    newest = Subquery(accepted.order_by("-assignment_id").values("metrics")[:1])
    rows = Device.objects.filter(pk__in=_numbers(lines)).order_by().annotate(newest=newest)
    reported = dict(rows.values_list("pk", "newest"))
    return [replace(line, accuracy=(reported.get(line.status.device_id) or {}).get("accuracy")) for line in lines]


def _numbers(lines: Iterable[DeviceLine]) -> Collection[int]:
    return [line.status.device_id for line in lines]
