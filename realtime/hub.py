"""The hub: what one process receives from the channel layer once, it hands to each of its connections.

To the outside it is Channels: connections join groups, and `group_send` from anywhere reaches every member. Inside, one
channel for each connection type (and one for all devices and people) is the member. For each stream the hub knows the
newest event it has handed out: the next one is delivered, an older one dropped, and a later one means that something
was missed and is read from the log. Heads are compared with the log every few seconds too, so that an event is late
when the layer lost it, never lost. The hub awaits no client: it only fills queues.
"""

import asyncio
import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Position
from fl import histories
from realtime.batches import Batch, portions_of
from realtime.connection import Connection, Counters
from realtime.database import query
from realtime.frames import Frame
from realtime.groups import KINDS, Kind, groups_of
from realtime.layer import LayerChannel
from realtime.log import LogEntry, LogPages, StreamHead, read_heads
from realtime.messages import (
    CLOSE,
    EVENT,
    RECHECK,
    Ending,
    Labels,
    LayerMessage,
    Logged,
    Tick,
    ending_of,
    logged_of,
    tick_of,
)
from realtime.tasks import end

logger = logging.getLogger(__name__)

RECIPIENTS_AT_ONCE = 100
"""After so many the loop has its turn, or a large fan-out, or many small ones, would delay all else by their length."""
PERSONAL = "personal"

Given = TypeVar("Given")


def _heads_of_one_history(seen: dict[str, Position]) -> list[StreamHead]:
    """Return where all streams stand that are followed here, each with a new epoch where one has fallen."""
    followed = frozenset(name for name in seen if name.startswith("device:"))
    heads = read_heads(followed)
    lower = histories.fallen(seen, {head.name: Position(epoch=head.epoch, seq=head.head) for head in heads})
    if not lower:
        return heads
    histories.renew(lower)
    return read_heads(followed)


class _Stream:
    """How far a stream has been handed out here."""

    __slots__ = ("epoch", "labels", "last", "repairing", "wanted")

    def __init__(self, epoch: str, last: int, labels: Labels) -> None:
        self.epoch = epoch
        self.last = last
        self.labels = labels
        self.wanted = last
        self.repairing = False


class Hub:
    """All connections of one process, and its memberships in the channel layer."""

    def __init__(self, recheck: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Make a hub.

        Args:
            recheck: is awaited with the group of a person whose rights have changed.
        """
        self.log = LogPages()
        self.counters = Counters()
        self._recheck = recheck
        self._members: defaultdict[str, dict[str, Connection]] = defaultdict(dict)
        self._groups: dict[str, tuple[str, ...]] = {}
        self._channels: dict[str, LayerChannel] = {}
        self._streams: dict[str, _Stream] = {}
        self._is_awake = False
        self._served = 0
        self._waking = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # ── members ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def join(self, connection: Connection, *groups: str) -> None:
        """Let a connection hear what is sent to these groups, from now on."""
        await self._wake()
        self._groups[connection.id] = groups
        for group in groups:
            members = self._members[group]
            members[connection.id] = connection
            if len(members) == 1:
                await self._channel_of(group).join(group)

    async def leave(self, connection: Connection) -> None:
        """Forget a connection; the last one of a group leaves it."""
        for group in self._groups.pop(connection.id, ()):
            members = self._members[group]
            members.pop(connection.id, None)
            if not members:
                del self._members[group]
                await self._channel_of(group).leave(group)
        if not self._groups:
            # Nobody listens: what happens now need not be followed, and the next to come reads the heads anew.
            self._is_awake = False
            self._streams.clear()

    def connections(self, *kinds: Kind) -> list[Connection]:
        """Return the connections of some types, of all types when none is named."""
        return [one for kind in kinds or Kind for one in self._members.get(kind, {}).values()]

    def members(self, group: str) -> list[Connection]:
        """Return the local members of a group."""
        return list(self._members.get(group, {}).values())

    def track(self, streams: Iterable[tuple[str, str, int, Labels]]) -> None:
        """Follow streams of devices, which are not followed unless somebody here does, from where they stand."""
        for name, epoch, head, labels in streams:
            if name.startswith("device:"):
                self._streams.setdefault(name, _Stream(epoch, head, labels))

    def handed_out(self) -> dict[str, Position] | None:
        """Return how far each stream was handed out here; None while nobody listens, since then none is followed."""
        if not self._is_awake:
            return None
        return {name: Position(epoch=stream.epoch, seq=stream.last) for name, stream in self._streams.items()}

    async def rejoin(self) -> None:
        """Join all groups once more; layers forget."""
        for channel in list(self._channels.values()):  # others come meanwhile
            await channel.rejoin()

    @property
    def received(self) -> int:
        """How many messages the layer has brought so far."""
        return sum(channel.received for channel in self._channels.values())

    async def begin_anew(self) -> None:
        """Take new channels for all groups, since the layer has forgotten those that there were."""
        for channel in list(self._channels.values()):
            await channel.begin_anew()

    async def stop(self) -> None:
        """Leave the layer and end all work."""
        for channel in list(self._channels.values()):
            await channel.stop()
        await end(self._tasks)

    def _channel_of(self, group: str) -> LayerChannel:
        name = group if group in KINDS else PERSONAL
        channel = self._channels.get(name)
        if channel is None:

            async def receive(messages: list[LayerMessage]) -> None:
                await self.receive(messages, group=None if name == PERSONAL else name)

            channel = self._channels[name] = LayerChannel(name, receive=receive, missed=self.poll)
        return channel

    async def _wake(self) -> None:
        async with self._waking:
            if not self._is_awake:
                await query(histories.look)
                for head in await query(read_heads, frozenset()):
                    self._streams[head.name] = _Stream(head.epoch, head.head, head.labels)
                self._is_awake = True

    # ── what comes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self, messages: list[LayerMessage], *, group: str | None = None) -> None:
        """Take messages of the layer, in order; `group` is the one that all are for, where the channel has only one."""
        together: deque[tuple[str, Logged | Tick]] = deque()
        for message in messages:
            to = group or message.get("group")
            try:
                event = self._event_of(message) if to is not None else None
                if to is not None and event is not None:
                    together.append((to, event))
                else:
                    await self._receive_events(together)
                    await self._receive_other(message, to)
            except Exception:
                # It must not keep back those beside it; durable events are in the log.
                logger.exception("a message to %s could not be handled", to)
        await self._receive_events(together)

    def _event_of(self, message: LayerMessage) -> Logged | Tick | None:
        if message.get("type") != EVENT:
            return None
        if "seq" in message:
            return logged_of(message)
        if "key" in message:
            stream = self._streams.get(message["stream"])
            return tick_of(message, stream.labels if stream else Labels())
        return None

    async def _receive_other(self, message: LayerMessage, group: str | None) -> None:
        match message.get("type"):
            case _ if group is None:
                logger.warning(
                    "a message to a device or person names no group, so nobody gets it: %s", message.get("type")
                )
            case str(kind) if kind == EVENT:
                await self._give(group, Connection.push, Frame(message["frame"]))
            case str(kind) if kind == CLOSE:
                self._end(group, ending_of(message))
            case str(kind) if kind == RECHECK:
                self._start(self._recheck(group))
            case unknown:
                logger.warning("a message of unknown type %r to %s is ignored", unknown, group)

    async def _receive_events(self, events: deque[tuple[str, Logged | Tick]]) -> None:
        """Hand out events in order: ticks and those that are next together, and what is to be looked at alone."""
        while events:
            async with self._turn:
                ready: list[tuple[tuple[str, ...], Logged | Tick]] = []
                while events and (groups := self._groups_if_ready(*events[0])) is not None:
                    _, event = events.popleft()
                    if groups:
                        ready.append((groups, event))
                await self._hand_out(ready)
            if events:
                _, event = events.popleft()
                if isinstance(event, Logged):  # a tick is always ready
                    await self._ingest(event)

    def _groups_if_ready(self, group: str, event: Logged | Tick) -> tuple[str, ...] | None:
        """Return where an event goes now, which is nowhere if it is known already; None if it is to be looked at.

        A durable event that goes out is from then on the last of its stream.
        """
        if isinstance(event, Tick):
            return (group,)
        stream = self._streams.get(event.stream)
        if stream is None or event.epoch != stream.epoch:
            return None
        if event.seq <= stream.last:
            return ()
        if stream.repairing or event.seq != stream.last + 1 or event.labels != stream.labels:
            return None
        stream.last = event.seq
        return groups_of(event.stream, public=event.labels.public)

    def _end(self, group: str, ending: Ending) -> None:
        for connection in self.members(group):
            if ending.connection_id in ("", connection.id) and ending.session in ("", connection.session):
                connection.close(CloseCode(ending.code), ending.reason)

    async def _ingest(self, event: Logged) -> None:
        """Deliver the next event of a stream; see to it that none is missing."""
        stream = self._streams.get(event.stream)
        if stream is None:
            if event.stream.startswith("device:") or not self._is_awake:
                return  # nobody here follows it
            stream = self._streams[event.stream] = _Stream(event.epoch, 0, event.labels)
        if event.epoch != stream.epoch:
            self._take_other_history(event.stream, stream, event.epoch, event.seq - 1)
        if event.seq <= stream.last:
            return
        self._relabel(event.stream, stream, event.labels)
        if event.seq > stream.last + 1 or stream.repairing:
            self._want(event.stream, stream, event.seq)
            return
        async with self._turn:
            if event.seq == stream.last + 1:
                stream.last = event.seq
                await self._hand_out([(groups_of(event.stream, public=event.labels.public), event)])

    async def _hand_out(self, events: Sequence[tuple[tuple[str, ...], Logged | Tick]]) -> None:
        """Hand out events, each to its groups; those to the same groups, as far as they follow each other, together."""
        self.counters.events += len(events)
        for groups, same in itertools.groupby(events, key=lambda addressed: addressed[0]):
            for portion in portions_of(event for _, event in same):
                batch = Batch(portion)
                for group in groups:
                    await self._give_batch(group, batch)

    async def _give_batch(self, group: str, batch: Batch) -> None:
        [first, *others] = batch.events
        if others:
            await self._give(group, Connection.deliver_all, batch)
        elif isinstance(first, Tick):
            await self._give(group, Connection.deliver_tick, first)
        else:
            await self._give(group, Connection.deliver, first)

    async def _give(self, group: str, give: Callable[[Connection, Given], None], what: Given) -> None:
        """Give something to each member of a group; after a hundred, of one event or of many, the loop has its turn."""
        members = self.members(group)
        while members:
            room = RECIPIENTS_AT_ONCE - self._served % RECIPIENTS_AT_ONCE
            portion, members = members[:room], members[room:]
            for connection in portion:
                give(connection, what)
            self._served += len(portion)
            if len(portion) == room:
                await asyncio.sleep(0)

    # ── what was missed ───────────────────────────────────────────────────────────────────────────────────────────────

    async def poll(self) -> None:
        """Compare what was handed out with the log, in one query, and hand out what is missing."""
        # What was handed out was committed before, so that a lower head can only be that of an older copy.
        seen = self.handed_out()
        if seen is None:
            return
        try:
            heads = await query(_heads_of_one_history, seen)
        except Exception as error:
            logger.warning("the log could not be asked for news: %s: %s", type(error).__name__, error)
            return
        for head in heads:
            self._compare(head)

    def _compare(self, head: StreamHead) -> None:
        if not self._is_awake:
            return  # the last connection left while the log was asked
        stream = self._streams.get(head.name)
        if stream is None:
            # All streams were known when the first connection came, so this one began later: all of it is news.
            stream = self._streams[head.name] = _Stream(head.epoch, 0, head.labels)
        self._relabel(head.name, stream, head.labels)
        if head.epoch != stream.epoch:
            self._take_other_history(head.name, stream, head.epoch, head.head)
        elif head.head > stream.last:
            self._want(head.name, stream, head.head)

    def _relabel(self, name: str, stream: _Stream, labels: Labels) -> None:
        if stream.labels != labels:
            stream.labels = labels
            # All of them: those who may see it no more are in no group that its events go to.
            for connection in self.connections():
                connection.relabel(name, labels)

    def _take_other_history(self, name: str, stream: _Stream, epoch: str, last: int) -> None:
        logger.warning("the history of %s is another one: %s, not %s", name, epoch, stream.epoch)
        stream.epoch, stream.last, stream.wanted = epoch, last, last
        for connection in self.connections():
            cursor = connection.cursors.get(name)
            if cursor is not None and cursor.epoch != epoch:
                connection.close(CloseCode.POSITION_LOST, f"the history of {name} is another one now")

    def _lose_position(self, name: str, stream: _Stream) -> None:
        logger.warning("the log has nothing after %s#%d, though it reaches %d", name, stream.last, stream.wanted)
        stream.last = stream.wanted
        for connection in self.connections():
            if name in connection.cursors:
                connection.close(CloseCode.POSITION_LOST, f"events of {name} are no longer kept")

    def _want(self, name: str, stream: _Stream, seq: int) -> None:
        stream.wanted = max(stream.wanted, seq)
        if not stream.repairing:
            stream.repairing = True
            self._start(self._repair(name, stream))

    async def _repair(self, name: str, stream: _Stream) -> None:
        """Hand out from the log what the layer did not bring."""
        doubted = False
        try:
            while stream.last < stream.wanted and self._streams.get(name) is stream:
                page = await self.log.after(name, stream.epoch, stream.last)
                if not page and doubted:
                    self._lose_position(name, stream)
                    break
                # A page that somebody else had asked for earlier may be older than the news: it is read once more.
                doubted = not page
                async with self._turn:
                    await self._hand_out(self._next_of(name, stream, page))
        except Exception as error:
            logger.warning("%s could not be read from the log: %s: %s", name, type(error).__name__, error)
        finally:
            # Whatever is still missing is found by the next event or poll.
            stream.wanted = stream.last
            stream.repairing = False

    def _next_of(self, name: str, stream: _Stream, page: list[LogEntry]) -> list[tuple[tuple[str, ...], Logged]]:
        groups = groups_of(name, public=stream.labels.public)
        found = [
            (groups, Logged(name, stream.epoch, entry.seq, entry.frame, stream.labels))
            for entry in page
            if entry.seq > stream.last
        ]
        if found:
            stream.last = found[-1][1].seq
        return found

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
