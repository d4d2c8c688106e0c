"""How a connection takes up its streams: what it missed out of the log, or where that cannot be, what is true now.

`plan` reads, at one moment, where each stream stands and, where something cannot be recovered, the snapshot; `plans`
does it for many who come at once. `replay` turns the plan into frames: `recent_events` of each stream up to that
moment, then the snapshot. From there the connection goes on live.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db.models import Q

from edge.protocol.server import LoggedEvent, Position, RecentEvents, Snapshot, encode_frame, encode_payload
from fl.events import SYSTEM
from fl.models import Device, Event, Stream
from fl.snapshots import consistent_read, snapshot_for
from fl.visibility import Principal, audience_stream, runs_for, streams_for
from realtime.groups import Kind
from realtime.limits import CHUNK_BYTES, CHUNK_EVENTS
from realtime.log import LogPages
from realtime.messages import Labels

T = TypeVar("T")
Reason = Literal["", "fresh", "epoch", "too_old", "too_far"]


@dataclass(frozen=True)
class Resume:
    """From where a stream is replayed: what was missed (`recovered`), or the newest events, and why."""

    since: int
    recovered: bool
    reason: Reason = ""


@dataclass(frozen=True)
class Part:
    """One stream of a plan."""

    stream: str
    epoch: str
    head: int
    labels: Labels
    resume: Resume


@dataclass(frozen=True)
class Plan:
    """What a connection is sent before it goes on live."""

    parts: list[Part]
    snapshot: Snapshot | None = None

    @property
    def positions(self) -> dict[str, Position]:
        """Where the streams stood when the plan was made."""
        return {part.stream: Position(epoch=part.epoch, seq=part.head) for part in self.parts}


def resume_from(position: Position | None, *, epoch: str, head: int, kept_from: int, history: int) -> Resume:
    """Decide how a stream is taken up.

    Args:
        position: where the client stands, if it says so.
        kept_from: the oldest event after the client's position that the log still has; head + 1 when there is none.
        history: how many of the newest events one gets that cannot or does not resume.
    """
    if position is None:
        reason: Reason = "fresh"
    elif position.epoch != epoch or not 0 <= position.seq <= head:
        # Ahead of the head: the log was restored from a copy that is older than the client.
        reason = "epoch"
    elif head - position.seq > settings.QFLARE_RESUME_EVENTS:
        reason = "too_far"
    elif kept_from != position.seq + 1:
        reason = "too_old"
    else:
        return Resume(position.seq, recovered=True)
    return Resume(max(0, head - history), recovered=False, reason=reason)


@dataclass(frozen=True)
class Opening:
    """What a connection asks for that comes, or that takes up further streams.

    Attributes:
        since: where the client stands; these streams are followed too.
        history: how many of the newest events of a stream one gets that does not resume.
        streams: only these; None for all that the connection follows unasked.
        always_snapshot: give the snapshot although everything is recovered.
    """

    principal: Principal
    kind: Kind
    since: Mapping[str, Position]
    history: int
    streams: Sequence[str] | None = None
    always_snapshot: bool = False


def plan(asked: Opening) -> Plan:
    """Read where a connection's streams stand, and how each is taken up; streams it may not see are not mentioned."""
    with consistent_read():
        return _plan(asked, _Moment())


def plans(asked: Sequence[Opening]) -> list[Plan | Exception]:
    """Make the plans of several connections at one moment, each as `plan` does or with what it raises."""
    with consistent_read():
        moment = _Moment()
        return [_plan_or_error(one, moment) for one in asked]


def _plan_or_error(asked: Opening, moment: "_Moment") -> Plan | Exception:
    try:
        return _plan(asked, moment)
    except DatabaseFailure:
        raise
    except Exception as error:
        # What one asks for must not keep the others out.
        return error


def _plan(asked: Opening, moment: "_Moment") -> Plan:
    followed = _followed_unasked(asked, moment) if asked.streams is None else set(asked.streams)
    # No stream's name has a NUL, and PostgreSQL takes no text with one, not even to look for.
    wanted = frozenset(name for name in followed.union(asked.since) if "\0" not in name)
    rows = moment.streams(asked.principal, wanted)
    parts = [_part(row, _position_in(row, asked), asked.history, moment) for row in rows]
    # Without any stream yet, one who comes for everything is still told what is true.
    is_resumed = all(part.resume.recovered for part in parts) and (bool(parts) or asked.streams is not None)
    if is_resumed and not asked.always_snapshot:
        return Plan(parts)
    return Plan(parts, moment.snapshot(asked.principal))


class _Moment:
    """What is true at one moment; what several see alike is read once."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def open_runs(self, principal: Principal) -> list[int]:
        """Return the runs that have not ended, of those that this one may see."""

        def read() -> list[int]:
            return list(runs_for(principal).filter(ended_at__isnull=True).values_list("pk", flat=True))

        return self._once(("runs", _eyes(principal)), read)

    def streams(self, principal: Principal, names: frozenset[str]) -> list[Stream]:
        """Return the streams of these names that there are and that this one may see, by name."""

        def read() -> list[Stream]:
            return list(streams_for(principal).filter(name__in=names).order_by("name"))

        return self._once(("streams", _eyes(principal), names), read)

    def kept_after(self, stream: Stream, seq: int) -> int:
        """Return the oldest event after this one that the log still has; head + 1 when there is none."""

        def read() -> int:
            later = Event.objects.filter(Q(stream=stream) & Q(seq__gt=seq)).order_by("seq")
            return later.values_list("seq", flat=True).first() or stream.head + 1

        return self._once(("kept", stream.name, seq), read)

    def snapshot(self, principal: Principal) -> Snapshot:
        """Return what is true, as this one may see it."""
        return self._once(("snapshot", _eyes(principal)), lambda: snapshot_for(principal))

    def _once(self, what: Any, read: Callable[[], T]) -> T:
        if what not in self._known:
            self._known[what] = read()
        found: T = self._known[what]
        return found


def _eyes(principal: Principal) -> Principal:
    # What one sees does not depend on who of all people with a role one is.
    return replace(principal, user_id=None)


def _followed_unasked(asked: Opening, moment: _Moment) -> set[str]:
    """Return the streams that a connection follows from the start: runs that have not ended, and what is its own."""
    names = {f"run:{pk}" for pk in moment.open_runs(asked.principal)} | {SYSTEM, audience_stream(asked.kind)}
    if asked.principal.device_id is not None:
        names.add(f"device:{asked.principal.device_id}")
    return names


def _position_in(row: Stream, asked: Opening) -> Position | None:
    position = asked.since.get(row.name)
    device_id = asked.principal.device_id
    if position is None and device_id is not None and row.name == f"device:{device_id}":
        acked = Device.objects.values_list("acked_seq", flat=True).get(pk=device_id)
        # What a device has not acknowledged is told again, even to one that lost its memory.
        return Position(epoch=row.epoch, seq=acked) if 0 < acked <= row.head else None
    return position


def _part(row: Stream, position: Position | None, history: int, moment: _Moment) -> Part:
    kept_from = row.head + 1
    if position is not None and 0 <= position.seq < row.head:
        kept_from = moment.kept_after(row, position.seq)
    resume = resume_from(position, epoch=row.epoch, head=row.head, kept_from=kept_from, history=history)
    return Part(row.name, row.epoch, row.head, Labels(row.task, row.public), resume)


# ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def replay(plan: Plan, log: LogPages) -> AsyncIterator[tuple[str, str]]:
    """Make the frames of a plan one at a time, each with its stream; a snapshot belongs to none."""
    for part in plan.parts:
        async for recent in _recent_events(part, log):
            yield part.stream, encode_frame(RecentEvents.event, recent)
    if plan.snapshot is not None:
        for chunk in chunks_of(msgspec.structs.replace(plan.snapshot, streams=plan.positions)):
            yield "", encode_frame(Snapshot.event, chunk)


async def _recent_events(part: Part, log: LogPages) -> AsyncIterator[RecentEvents]:
    seq, is_told = part.resume.since, False
    while seq < part.head:
        page = [entry for entry in await log.after(part.stream, part.epoch, seq) if entry.seq <= part.head]
        if not part.resume.recovered and (not page or page[0].seq > seq + 1):
            # Fewer are kept than one would get: it begins with the oldest of them.
            seq = page[0].seq - 1 if page else min(part.head, (seq // CHUNK_EVENTS + 1) * CHUNK_EVENTS)
            continue
        if not page or page[0].seq != seq + 1:
            raise LookupError(f"the log of {part.stream} has nothing after {seq}, though it reaches {part.head}")
        for events in _within_bytes([entry.logged for entry in page]):
            yield _frame_of(part, events, since=seq)
            seq, is_told = events[-1].seq, True
    if not is_told:
        yield _frame_of(part, [], since=seq)


def _frame_of(part: Part, events: list[LoggedEvent], *, since: int) -> RecentEvents:
    to = events[-1].seq if events else part.head
    return RecentEvents(
        stream=part.stream,
        epoch=part.epoch,
        recovered=part.resume.recovered,
        reason=part.resume.reason,
        events=events,
        since=since,
        to=to,
        more=to < part.head,
    )


def _within_bytes(events: Sequence[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
    chunk: list[LoggedEvent] = []
    size = 0
    for event in events:
        length = len(bytes(event.data)) + 120
        if chunk and size + length > CHUNK_BYTES - 1024:
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += length
    if chunk:
        yield chunk


def chunks_of(snapshot: Snapshot) -> Iterator[Snapshot]:
    """Divide a snapshot into frames that are short enough; all but the last say that more follows."""
    if len(encode_payload(snapshot)) <= CHUNK_BYTES - 1024:
        yield snapshot
        return
    empty = Snapshot(streams=snapshot.streams, more=True)
    for name in ("runs", "models", "devices", "progress"):
        for items in _lists_within_bytes(getattr(snapshot, name)):
            yield msgspec.structs.replace(empty, **{name: items})
    yield msgspec.structs.replace(empty, assignment=snapshot.assignment, more=False)


def _lists_within_bytes(items: Sequence[msgspec.Struct]) -> Iterator[list[msgspec.Struct]]:
    chunk: list[msgspec.Struct] = []
    size = 0
    for item in items:
        length = len(msgspec.json.encode(item)) + 1
        if chunk and size + length > CHUNK_BYTES // 2:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk
