"""One connection's way out: a bounded queue, a place in each stream, and the only task that sends.

A durable event is queued while there is room. When there is none, the stream is `behind`: nothing is dropped, since
from then on its events are read from the log, from this connection's own place, as fast as the peer takes them. Ticks
wait in the queue too, one for each key, and are what goes first.

Joining works the same way: streams are held while their missed events are replayed, what happens meanwhile is only
noted, and the log fills the rest. So there is no buffer to merge, and at the seam neither a hole nor a duplicate.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Bye, Error, Payload, encode_frame
from fl.visibility import Principal
from realtime.batches import Batch, portions_of, wire_of
from realtime.close_codes import meaning_of, require_sendable
from realtime.frames import Frame
from realtime.groups import Kind, follows_unasked
from realtime.limits import QueueLimits
from realtime.log import LogEntry, LogPages
from realtime.messages import Labels, Logged, Tick

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long a `bye` may take; after that the connection ends without it."""
RETRY_SECONDS = 1.0
"""How long to wait when the log could not be read."""


class Cursor:
    """A connection's place in one stream: `last` is the newest event queued or sent, `heard` the newest there is."""

    __slots__ = ("doubted", "epoch", "heard", "held", "labels", "last", "told")

    def __init__(self, epoch: str, last: int, labels: Labels, *, heard: int = 0, held: bool = False) -> None:
        self.epoch = epoch
        self.last = last
        self.heard = max(heard, last)
        self.held = held
        self.labels = labels
        self.told = last
        """What the newest heartbeat told of it."""
        self.doubted = False
        """The log was read once and did not hold what was heard of."""

    @property
    def is_live(self) -> bool:
        """All that was heard of has been queued or sent, and more may be."""
        return not self.held and self.heard == self.last

    def move_to(self, seq: int) -> None:
        """Take note that all up to an event that has just been heard of is queued or sent."""
        self.last = self.heard = seq


class Waiting:
    """A frame in the queue; a tick's can be replaced by a newer one while it waits."""

    __slots__ = ("frame", "key", "stream")

    def __init__(self, frame: Frame, *, stream: str = "", key: str = "") -> None:
        self.frame = frame
        self.stream = stream
        self.key = key


@dataclass
class Counters:
    """What a process has sent, summed over its connections."""

    frames: int = 0
    events: int = 0
    bytes_sent: int = 0
    """Of connections that have ended, in whole frames, as all bytes here; 0 where the server does not count them."""
    bytes_received: int = 0

    def add(self, traffic: tuple[int, int]) -> None:
        """Add the bytes that a connection has sent and received, at its end."""
        sent, received = traffic
        self.bytes_sent += sent
        self.bytes_received += received


def no_traffic() -> tuple[int, int]:
    """Return what a server counts that counts nothing: bytes sent, bytes received."""
    return 0, 0


@dataclass(frozen=True)
class Start:
    """Where a connection takes up a stream: it has, or will have been replayed, everything up to `last`."""

    stream: str
    epoch: str
    last: int
    labels: Labels


@dataclass
class _Replay:
    frames: AsyncIterator[tuple[str, str]]
    streams: list[str] = field(default_factory=list)


class Connection:
    """The server's end of one socket."""

    def __init__(
        self,
        *,
        kind: Kind,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int], Awaitable[None]],
        log: LogPages,
        counters: Counters,
        lost: Callable[[], None],
        write_at_once: Callable[[bytes], bool] | None = None,
        traffic: Callable[[], tuple[int, int]] = no_traffic,
        is_watched: bool = False,
        limits: QueueLimits | None = None,
    ) -> None:
        """Make a connection that sends nothing until it is started.

        Args:
            send: sends a text message, and returns when the transport takes the next.
            close: closes the socket with a code.
            lost: is called when the socket cannot even be closed.
            write_at_once: writes the bytes of a whole frame if nothing waits before it, and says whether it did; a
                server that can do so spares each frame the way through queue, writer and protocol.
            traffic: says how many bytes have been sent and received, if the server counts them.
            is_watched: the server itself ends a peer that takes nothing.
            limits: how much may wait.
        """
        self.id = secrets.token_hex(8)
        self.kind = kind
        self.principal = Principal()
        self.session = ""
        """Digest of the person's session, which ends with it."""
        self.cursors: dict[str, Cursor] = {}
        self.narrowed = False
        """The client has left a stream: from then on it alone says what it follows."""
        self.sending_since: float | None = None
        """Loop time at which the frame that the transport is taking was handed to it."""
        self.is_idle = False
        """The writer rests: nothing waits, nothing is replayed, no stream is behind, and no end is to be made."""
        self.closed_with: CloseCode | None = None
        self._send = send
        self._close = close
        self._log = log
        self._counters = counters
        self._lost = lost
        self._write_at_once = write_at_once
        self.traffic = traffic
        self.is_watched = is_watched
        self._limits = limits or QueueLimits()
        self._queue: deque[Waiting] = deque()
        self._size = 0
        self._ticks: dict[str, Waiting] = {}
        self._behind: dict[str, None] = {}
        self._replays: list[_Replay] = []
        self._held_all = True
        self._held: set[str] = set()
        self._heard: dict[str, Logged] = {}
        """The newest event of streams that are held, or not yet known to be followed."""
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the writer."""
        self._writer = asyncio.create_task(self._write(), name=f"writer of {self.kind} {self.id}")

    # ── what is to be sent ────────────────────────────────────────────────────────────────────────────────────────────

    def say(self, payload: Payload, *, id: str | None = None) -> None:
        """Queue a control frame; these are never dropped."""
        self.push(Frame(encode_frame(payload.event, payload, id=id)))

    def push(self, frame: Frame) -> None:
        """Queue a ready frame that has no place in a stream."""
        if self.closed_with is None and not self._is_written(frame):
            self._put(Waiting(frame))

    def deliver_all(self, batch: Batch) -> None:
        """Take events that came at the same time: with one write, if nothing is to go before them."""
        if not self._is_written_together(batch):
            for event in batch.events:
                if isinstance(event, Tick):
                    self.deliver_tick(event)
                else:
                    self.deliver(event)

    def _is_written_together(self, batch: Batch) -> bool:
        """Write what a batch holds for this peer now, if the server can and each event is a tick or the next one."""
        if not self.is_idle or self._write_at_once is None or self._held_all:
            return False
        wanted: list[Logged | Tick] = []
        lasts: dict[str, int] = {}
        for event in batch.events:
            if isinstance(event, Tick):
                if event.stream in self.cursors or self._takes_up(event):
                    wanted.append(event)
                continue
            cursor = self.cursors.get(event.stream)
            if cursor is None or not cursor.is_live or cursor.epoch != event.epoch or cursor.labels != event.labels:
                return False
            last = lasts.get(event.stream, cursor.last)
            if event.seq > last + 1:
                return False
            if event.seq == last + 1:
                lasts[event.stream] = event.seq
                wanted.append(event)
        if wanted and not self._write_at_once(batch.wire if len(wanted) == len(batch.events) else wire_of(wanted)):
            return False
        self._counters.frames += len(wanted)
        for stream, last in lasts.items():
            self.cursors[stream].move_to(last)
        return True

    def deliver(self, event: Logged) -> None:
        """Take a durable event: queue it, drop it as known, or note that the log has to be read for it."""
        cursor = self.cursors.get(event.stream)
        if cursor is None:
            if self._held_all or event.stream in self._held:
                self._heard[event.stream] = event
                return
            if not self._takes_up(event):
                return
            cursor = self._begin(event, heard=event.seq - 1)
        elif cursor.labels != event.labels and not self.relabel(event.stream, event.labels):
            return
        if cursor.epoch != event.epoch:
            self.close(CloseCode.POSITION_LOST, f"the history of {event.stream} is another one now")
            return
        self._advance(cursor, event)

    def deliver_tick(self, tick: Tick) -> None:
        """Take a tick: it replaces the one of its key that still waits; with a full queue it is dropped."""
        if self.closed_with is not None or self._held_all:
            return
        if tick.stream not in self.cursors and not self._takes_up(tick):
            return
        if self._is_written(tick.frame):
            return
        waiting = self._ticks.get(tick.key)
        if waiting is not None:
            self._size += tick.frame.size - waiting.frame.size
            waiting.frame = tick.frame
        elif self._has_room(tick.frame.size):
            self._ticks[tick.key] = waiting = Waiting(tick.frame, stream=tick.stream, key=tick.key)
            self._put(waiting)

    def _advance(self, cursor: Cursor, event: Logged) -> None:
        if event.seq <= cursor.heard:
            return
        is_next = cursor.is_live and event.stream not in self._behind and event.seq == cursor.last + 1
        cursor.heard = event.seq
        if is_next and self.closed_with is None and self._is_written(event.frame):
            cursor.last = event.seq
        elif is_next and self.closed_with is None and self._has_room(event.frame.size):
            cursor.last = event.seq
            self._put(Waiting(event.frame, stream=event.stream))
        elif not cursor.held:
            self._behind[event.stream] = None
            self._rouse()

    def _takes_up(self, event: Logged | Tick) -> bool:
        return not self.narrowed and self._sees_unasked(event.stream, event.labels)

    def _sees_unasked(self, stream: str, labels: Labels) -> bool:
        return follows_unasked(self.kind, stream, self.principal.device_id) and self._sees(stream, labels)

    def _sees(self, stream: str, labels: Labels) -> bool:
        return self.principal.sees(stream, task=labels.task, public=labels.public, in_trash=labels.in_trash)

    def _lose(self, streams: list[str]) -> None:
        self.drop(streams)
        names = ", ".join(streams[:10]) + (f" and {len(streams) - 10} more" if len(streams) > 10 else "")
        self.say(
            Error(code="unauthorized", message=f"no longer to be seen with the rights of this connection: {names}")
        )

    def _begin(self, event: Logged, *, heard: int) -> Cursor:
        """Follow a stream that nobody spoke of, from its very beginning: the peer has nothing of it yet.

        Most have just begun. One that has not had ended when it was read what to follow, or ended before.
        """
        cursor = self.cursors[event.stream] = Cursor(event.epoch, 0, event.labels, heard=heard)
        if cursor.heard > cursor.last:
            self._behind[event.stream] = None
        return cursor

    def _is_written(self, frame: Frame) -> bool:
        """Write a frame now, if the server can and nothing is to go before it."""
        if not self.is_idle or self._write_at_once is None or not self._write_at_once(frame.wire):
            return False
        self._counters.frames += 1
        return True

    def _has_room(self, size: int) -> bool:
        return len(self._queue) < self._limits.frames and self._size + size <= self._limits.size

    def _rouse(self) -> None:
        """Let the writer look what there is to do; nothing is written past it until it has."""
        self.is_idle = False
        self._wake.set()

    def _put(self, waiting: Waiting) -> None:
        self._queue.append(waiting)
        self._size += waiting.frame.size
        self._rouse()

    # ── which streams ─────────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, streams: Iterable[str]) -> None:
        """Send nothing more of these streams until `resume` says where to go on."""
        for stream in streams:
            if stream in self.cursors:
                self.cursors[stream].held = True
                self._behind.pop(stream, None)
            else:
                self._held.add(stream)

    def resume(
        self, starts: Iterable[Start], replay: AsyncIterator[tuple[str, str]], *, released: Iterable[str] = ()
    ) -> None:
        """Send a replay, and then follow these streams from where it ends.

        Args:
            starts: where the replay ends in each stream.
            replay: frames, each with its stream (none for a snapshot); read one at a time, as the peer takes them.
            released: further streams that were held and are to go on as if nothing had been asked.
        """
        names = [start.stream for start in starts]
        for start in starts:
            newest = self._heard.pop(start.stream, None)
            known = self.cursors.get(start.stream)
            last = max(start.last, known.last if known else 0)
            heard = max(newest.seq if newest else 0, known.heard if known else 0)
            self.cursors[start.stream] = Cursor(start.epoch, last, start.labels, heard=heard, held=True)
        self._held.difference_update([*names, *released])
        self._release([name for name in released if name not in names])
        if self._held_all:
            self._held_all = False
            self._take_up_what_began_meanwhile()
        self._replays.append(_Replay(replay, names))
        self._rouse()

    def drop(self, streams: Iterable[str]) -> None:
        """Follow these streams no more; what waits of them is not sent."""
        gone = set(streams)
        for stream in gone:
            self.cursors.pop(stream, None)
            self._behind.pop(stream, None)
            self._held.discard(stream)
            self._heard.pop(stream, None)
        self._keep(lambda waiting: waiting.stream not in gone)

    def relabel(self, stream: str, labels: Labels) -> bool:
        """Take note that who may see a stream has changed; say whether this connection still may, else it is told."""
        cursor = self.cursors.get(stream)
        if cursor is None or cursor.labels == labels:
            return cursor is not None
        cursor.labels = labels
        if self._sees(stream, labels):
            return True
        self._lose([stream])
        return False

    def become(self, principal: Principal) -> list[str]:
        """Look with other rights from now on; tell the client which streams it sees no more, and return them."""
        self.principal = principal
        lost = [name for name, cursor in self.cursors.items() if not self._sees(name, cursor.labels)]
        if lost:
            self._lose(lost)
        if lost and self._replays:
            # What is being replayed was read with the old rights.
            self.close(CloseCode.POSITION_LOST, "the rights of this connection have changed")
        return lost

    def heads_since_last_told(self) -> dict[str, int]:
        """Return how far each stream has come that moved since this was last asked."""
        cursors = self.cursors.items()
        moved = {name: cursor.last for name, cursor in cursors if cursor.last != cursor.told and not cursor.held}
        for name, seq in moved.items():
            self.cursors[name].told = seq
        return moved

    def _take_up_what_began_meanwhile(self) -> None:
        heard, self._heard = self._heard, {name: item for name, item in self._heard.items() if name in self._held}
        for name, newest in heard.items():
            if name not in self._held and self._takes_up(newest):
                self._begin(newest, heard=newest.seq)

    def _release(self, streams: Iterable[str]) -> None:
        for stream in streams:
            self._heard.pop(stream, None)
            cursor = self.cursors.get(stream)
            if cursor is not None:
                cursor.held = False
                if cursor.heard > cursor.last:
                    self._behind[stream] = None
                    self._rouse()

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self, code: CloseCode, reason: str = "", *, retry_after_ms: int | None = None) -> None:
        """Say `bye` and close; what else waits in the queue is left to the log and the next connection."""
        if self.closed_with is not None:
            return
        require_sendable(code)
        # Replies, above all the error that explains the close, still go out.
        self._keep(lambda waiting: not waiting.stream)
        self.say(Bye(code=code, reason=reason or meaning_of(code), retry_after_ms=retry_after_ms))
        self.closed_with = code
        self._rouse()

    async def finished(self) -> None:
        """Wait until nothing more will be sent."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def end(self) -> None:
        """Stop the writer; nothing is sent any more."""
        self.closed_with = self.closed_with or CloseCode.NORMAL
        if self._writer is not None and self._writer is not asyncio.current_task():
            self._writer.cancel()
            await asyncio.wait([self._writer])
        # A task that was cancelled keeps what it had at hand, such as a page of the log. With its connection it would
        # be a circle, which stays until garbage is collected.
        self._writer = None
        self._queue.clear()
        self._ticks.clear()
        self._replays.clear()
        self._size = 0
        # At one blow, or statistics would miss these bytes, or count them twice, while it leaves the hub.
        self._counters.add(self.traffic())
        self.traffic = no_traffic

    def abort(self, code: CloseCode) -> None:
        """Give up on a peer that takes nothing: no `bye` can get through to it."""
        self.closed_with = code
        if self._writer is not None:
            self._writer.cancel()

    def _keep(self, wanted: Callable[[Waiting], bool]) -> None:
        self._queue = deque(waiting for waiting in self._queue if wanted(waiting))
        self._size = sum(waiting.frame.size for waiting in self._queue)
        self._ticks = {waiting.key: waiting for waiting in self._queue if waiting.key}

    # ── the writer ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def queued(self) -> tuple[int, int]:
        """How many frames, and how many bytes of them, wait."""
        return len(self._queue), self._size

    @property
    def replays(self) -> int:
        """How many replays wait or are being sent."""
        return len(self._replays)

    @property
    def is_behind(self) -> bool:
        """Some stream is being fed from the log."""
        return bool(self._behind or self._replays)

    async def _write(self) -> None:
        try:
            await self._write_until_closed()
        except asyncio.CancelledError:
            if self.closed_with is CloseCode.TOO_SLOW:
                await self._hang_up()
            raise
        except Exception as error:
            # The transport is gone: the server tells it to the consumer as a disconnect.
            logger.info("sending to %s %s ended: %s: %s", self.kind, self.id, type(error).__name__, error)

    async def _write_until_closed(self) -> None:
        while True:
            if self._queue:
                # Not by a name here: it would keep the last frame for as long as the writer rests.
                await self._transmit(self._take().text)
            elif self.closed_with is not None:
                await self._hang_up()
                return
            elif self._replays:
                await self._replay()
            elif self._behind:
                await self._catch_up()
            else:
                self._wake.clear()
                self.is_idle = True
                await self._wake.wait()

    def _take(self) -> Frame:
        waiting = self._queue.popleft()
        self._size -= waiting.frame.size
        if waiting.key:
            self._ticks.pop(waiting.key, None)
        return waiting.frame

    async def _replay(self) -> None:
        replay = self._replays[0]
        try:
            item = await anext(replay.frames, None)
        except Exception:
            # The log could not be read, so the promise cannot be kept here: the client resumes from what it has.
            logger.exception("a replay for %s %s failed", self.kind, self.id)
            self.close(CloseCode.POSITION_LOST, "the log could not be read")
            return
        if item is not None:
            stream, frame = item
            if not stream or stream in self.cursors:
                await self._transmit(frame)
            return
        del self._replays[0]
        for stream in replay.streams:
            if not any(stream in later.streams for later in self._replays):
                self._release([stream])

    async def _catch_up(self) -> None:
        stream = next(iter(self._behind))
        cursor = self.cursors[stream]
        try:
            page = await self._log.after(stream, cursor.epoch, cursor.last)
        except Exception:
            logger.exception("the log could not be read for %s %s; it is tried again", self.kind, self.id)
            await asyncio.sleep(RETRY_SECONDS)
            return
        written = self._write_logged(stream, cursor, page)
        if written:
            await asyncio.sleep(0)  # what is written at once waits for nothing, and others have their turn
        for entry in page[written:]:
            if not self._is_at(stream, cursor):
                return
            if entry.seq > cursor.heard:
                break  # the hub has not handed it out yet, nor said who may see it
            if entry.seq != cursor.last + 1:
                self._lose_position(stream, cursor)
                return
            cursor.last = entry.seq
            await self._transmit(entry.frame.text)
        if not page and cursor.doubted:
            self._lose_position(stream, cursor)
            return
        # A page that another reader had asked for earlier may be older than the announcement: it is read once more.
        cursor.doubted = not page
        if cursor.last == cursor.heard:
            self._behind.pop(stream, None)

    def _is_at(self, stream: str, cursor: Cursor) -> bool:
        """Say whether the client has not left the stream, or lost the right to it, while something was read or sent."""
        return self.cursors.get(stream) is cursor and not cursor.held and self.closed_with is None

    def _write_logged(self, stream: str, cursor: Cursor, page: list[LogEntry]) -> int:
        """Write the next events of a page, as far as the server can now and nothing is wrong; return how many."""
        if self._write_at_once is None or not self._is_at(stream, cursor):
            return 0
        written = 0
        for entries in portions_of(page):
            first, last = entries[0].seq, entries[-1].seq
            is_whole = first == cursor.last + 1 and last == cursor.last + len(entries)
            if not is_whole or last > cursor.heard or not self._write_at_once(wire_of(entries)):
                break
            cursor.last = last
            written += len(entries)
        self._counters.frames += written
        return written

    def _lose_position(self, stream: str, cursor: Cursor) -> None:
        self.close(CloseCode.POSITION_LOST, f"the log no longer has what follows {cursor.last} in {stream}")

    async def _transmit(self, frame: str) -> None:
        self.sending_since = asyncio.get_running_loop().time()
        await self._send(frame)
        self.sending_since = None
        self._counters.frames += 1

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._close(self.closed_with or CloseCode.NORMAL)
        except TimeoutError:
            logger.info("%s %s could not be closed properly: the peer takes nothing", self.kind, self.id)
            self._lost()
