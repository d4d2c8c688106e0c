"""When a device was online: what its statuses tell, as spans of time; pure, no queries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

ONLINE, OFFLINE, UNKNOWN = "online", "offline", "unknown"


@dataclass(frozen=True)
class Change:
    """A device's status as it was told."""

    at: datetime
    presence: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Span:
    """From when to when a device was online or offline, or nothing was told of it."""

    presence: str
    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()


def spans(changes: Iterable[Change], *, before: str, since: datetime, until: datetime) -> list[Span]:
    """Return what a device was between two moments: spans that touch, oldest first, neighbours differing.

    Args:
        changes: oldest first; those outside the two moments count as at their ends.
        before: its presence at `since`; UNKNOWN where nothing was told.
    """
    found: list[Span] = []
    presence, start = before, since
    for change in changes:
        at = min(max(change.at, start), until)
        if change.presence == presence:
            continue
        if at > start:
            found.append(Span(presence, start, at))
        presence, start = change.presence, at
    if until > start:
        found.append(Span(presence, start, until))
    return _joined(found)


def _joined(found: Sequence[Span]) -> list[Span]:
    """Join neighbours that are alike: what was told in between took no time."""
    joined: list[Span] = []
    for span in found:
        if joined and joined[-1].presence == span.presence:
            joined[-1] = Span(span.presence, joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def share_online(found: Iterable[Span]) -> float | None:
    """Return the share of the known time in which a device was online, in [0, 1]; None where nothing is known."""
    known = [span for span in found if span.presence != UNKNOWN]
    whole = sum(span.seconds for span in known)
    return sum(span.seconds for span in known if span.presence == ONLINE) / whole if whole else None


def told_changes(changes: Sequence[Change], before: Change | None = None) -> list[Change]:
    """Return the changes among statuses, oldest first: those that tell of another state, presence or reason."""
    told: list[Change] = []
    last = before
    for change in changes:
        if last is None or (change.presence, change.state, change.reason) != (last.presence, last.state, last.reason):
            told.append(change)
        last = change
    return told


MIXED = "mixed"


def slots(found: Sequence[Span], count: int) -> list[Span]:
    """Return at most `count` spans over the same time, to be drawn: where there are more, equal pieces of it.

    A piece in which a device was both online and offline is MIXED.
    """
    if len(found) <= count:
        return list(found)
    start, end = found[0].start, found[-1].end
    step = (end - start) / count
    pieces, index = [], 0
    for number in range(count):
        left, right = start + number * step, start + (number + 1) * step
        while found[index].end <= left:
            index += 1
        kinds = set()
        last = index
        while last < len(found) and found[last].start < right:
            kinds.add(found[last].presence)
            last += 1
        pieces.append(Span(kinds.pop() if len(kinds) == 1 else MIXED, left, right))
    return _joined(pieces)
