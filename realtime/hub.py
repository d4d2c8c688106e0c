"""The hub: what one process receives from the channel layer once, it hands to each of its connections.

To the outside it is Channels: connections join groups, and `group_send` from anywhere reaches every member. Inside, one
channel for each connection type (and one for all devices and people) is the member. For each stream the hub knows the
newest event it has handed out: the next one is delivered, an older one dropped, and a later one means that something
was missed and is read from the log. Heads are compared with the log every few seconds too, so that an event is late
when the layer lost it, never lost. The hub awaits no client: it only fills queues.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Position
from fl import histories
from realtime.connection import Connection, Counters
from realtime.database import query
from realtime.frames import Frame
from realtime.groups import KINDS, Kind, groups_of
from realtime.layer import LayerChannel
from realtime.log import LogPages, StreamHead, read_heads
from realtime.messages import CLOSE, EVENT, RECHECK, Ending, Labels, LayerMessage, Logged, ending_of, logged_of
from realtime.tasks import end

logger = logging.getLogger(__name__)

RECIPIENTS_AT_ONCE = 100
"""After so many the loop has its turn, or a large fan-out, or many small ones, would delay all else by their length."""
PERSONAL = "personal"


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

    async def rejoin(self) -> None:
        """Join all groups once more; layers forget."""
        for channel in self._channels.values():
            await channel.rejoin()

    @property
    def received(self) -> int:
        """How many messages the layer has brought so far."""
        return sum(channel.received for channel in self._channels.values())

    async def begin_anew(self) -> None:
        """Take new channels for all groups, since the layer has forgotten those that there were."""
        for channel in self._channels.values():
            await channel.begin_anew()

    async def stop(self) -> None:
        """Leave the layer and end all work."""
        for channel in self._channels.values():
            await channel.stop()
        await end(self._tasks)

    def _channel_of(self, group: str) -> LayerChannel:
        name = group if group in KINDS else PERSONAL
        channel = self._channels.get(name)
        if channel is None:

            async def receive(message: LayerMessage) -> None:
                await self.receive(message, group=None if name == PERSONAL else name)

            channel = self._channels[name] = LayerChannel(name, receive=receive, missed=self.poll)
        return channel

    async def _wake(self) -> None:
        async with self._waking:
            if not self._is_awake:
                await query(histories.look)
                for head in await query(read_heads, frozenset()):
                    self._streams[head.name] = _Stream(head.epoch, head.head, Labels(head.task, head.public))
                self._is_awake = True

    # ── what comes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self, message: LayerMessage, *, group: str | None = None) -> None:
        """Take a message of the layer; `group` is the one it was received for, where the channel has only one."""
        group = group or message.get("group")
        match message.get("type"):
            case _ if group is None:
                logger.warning(
                    "a message to a device or person names no group, so nobody gets it: %s", message.get("type")
                )
            case str(kind) if kind == EVENT:
                await self._receive_event(message, group)
            case str(kind) if kind == CLOSE:
                self._end(group, ending_of(message))
            case str(kind) if kind == RECHECK:
                self._start(self._recheck(group))
            case unknown:
                logger.warning("a message of unknown type %r to %s is ignored", unknown, group)

    async def _receive_event(self, message: LayerMessage, group: str) -> None:
        if "seq" in message:
            await self._ingest(logged_of(message))
        elif "key" in message:
            await self._hand_tick(message, group)
        else:
            await self._hand_plain(Frame(message["frame"]), group)

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
                await self._fan_out(event)

    async def _fan_out(self, event: Logged) -> None:
        self.counters.events += 1
        for group in groups_of(event.stream, public=event.labels.public):
            async for portion in self._portions(group):
                for connection in portion:
                    connection.deliver(event)

    async def _hand_tick(self, message: LayerMessage, group: str) -> None:
        name, key, frame = message["stream"], message["key"], Frame(message["frame"])
        stream = self._streams.get(name)
        labels = stream.labels if stream else Labels()
        self.counters.events += 1
        async for portion in self._portions(group):
            for connection in portion:
                connection.deliver_tick(name, labels, key, frame)

    async def _hand_plain(self, frame: Frame, group: str) -> None:
        async for portion in self._portions(group):
            for connection in portion:
                connection.push(frame)

    async def _portions(self, group: str) -> AsyncIterator[list[Connection]]:
        """Give the members of a group in portions; between hundreds, of one event or of many, the loop has its turn."""
        members = self.members(group)
        while members:
            room = RECIPIENTS_AT_ONCE - self._served % RECIPIENTS_AT_ONCE
            portion, members = members[:room], members[room:]
            yield portion
            self._served += len(portion)
            if len(portion) == room:
                await asyncio.sleep(0)

    # ── what was missed ───────────────────────────────────────────────────────────────────────────────────────────────

    async def poll(self) -> None:
        """Compare what was handed out with the log, in one query, and hand out what is missing."""
        if not self._is_awake:
            return
        # What was handed out was committed before, so that a lower head can only be that of an older copy.
        seen = {name: Position(epoch=stream.epoch, seq=stream.last) for name, stream in self._streams.items()}
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
        labels = Labels(head.task, head.public)
        stream = self._streams.get(head.name)
        if stream is None:
            # All streams were known when the first connection came, so this one began later: all of it is news.
            stream = self._streams[head.name] = _Stream(head.epoch, 0, labels)
        self._relabel(head.name, stream, labels)
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
                    for entry in page:
                        if entry.seq > stream.last:
                            stream.last = entry.seq
                            await self._fan_out(Logged(name, stream.epoch, entry.seq, entry.frame, stream.labels))
        except Exception as error:
            logger.warning("%s could not be read from the log: %s: %s", name, type(error).__name__, error)
        finally:
            # Whatever is still missing is found by the next event or poll.
            stream.wanted = stream.last
            stream.repairing = False

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
