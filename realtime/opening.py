"""How a connection takes up its streams: what it missed out of the log, or where that cannot be, what is true now.

`plan` reads, at one moment, where each stream stands and, where something cannot be recovered, the snapshot. `replay`
turns the plan into frames: `recent_events` of each stream up to that moment, then the snapshot. From there the
connection goes on live.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from django.conf import settings
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


def plan(
    *,
    principal: Principal,
    kind: Kind,
    since: Mapping[str, Position],
    streams: Sequence[str] | None = None,
    history: int,
    always_snapshot: bool = False,
) -> Plan:
    """Read where a connection's streams stand, and how each is taken up; streams it may not see are not mentioned.

    Args:
        since: where the client stands; these streams are followed too.
        streams: only these; None for all that the connection follows unasked.
        history: how many of the newest events of a stream one gets that does not resume.
        always_snapshot: give the snapshot although everything is recovered.
    """
    with consistent_read():
        wanted = set(since) | (_followed_unasked(principal, kind) if streams is None else set(streams))
        # No stream's name has a NUL, and PostgreSQL takes no text with one, not even to look for.
        wanted = {name for name in wanted if "\0" not in name}
        rows = streams_for(principal).filter(name__in=wanted).order_by("name")
        parts = [_part(row, _position_in(row, since, principal), history) for row in rows]
        # Without any stream yet, one who comes for everything is still told what is true.
        is_resumed = all(part.resume.recovered for part in parts) and (bool(parts) or streams is not None)
        if is_resumed and not always_snapshot:
            return Plan(parts)
        return Plan(parts, snapshot_for(principal))


def _followed_unasked(principal: Principal, kind: Kind) -> set[str]:
    """Return the streams that a connection follows from the start: runs that have not ended, and what is its own."""
    open_runs = runs_for(principal).filter(ended_at__isnull=True).values_list("pk", flat=True)
    names = {f"run:{pk}" for pk in open_runs} | {SYSTEM, audience_stream(kind)}
    if principal.device_id is not None:
        names.add(f"device:{principal.device_id}")
    return names


def _position_in(row: Stream, since: Mapping[str, Position], principal: Principal) -> Position | None:
    position = since.get(row.name)
    device_id = principal.device_id
    if position is None and device_id is not None and row.name == f"device:{device_id}":
        acked = Device.objects.values_list("acked_seq", flat=True).get(pk=device_id)
        # What a device has not acknowledged is told again, even to one that lost its memory.
        return Position(epoch=row.epoch, seq=acked) if 0 < acked <= row.head else None
    return position


def _part(row: Stream, position: Position | None, history: int) -> Part:
    kept_from = row.head + 1
    if position is not None and 0 <= position.seq < row.head:
        later = Event.objects.filter(Q(stream=row) & Q(seq__gt=position.seq)).order_by("seq")
        kept_from = later.values_list("seq", flat=True).first() or kept_from
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
