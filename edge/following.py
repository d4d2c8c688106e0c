"""Where a program stands in each stream, without I/O: frames in, events out, each once and in order.

The same rules as in a browser (`static/js/live-socket.js`): what is known is passed over, a gap means to come again
from before it, and a history that is another one is told as `snapshot`, never mixed with the old one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec

from edge.positions import ENDED_RUN_STATES, MOST_POSITIONS, without_ended
from edge.protocol import server


class Gap(Exception):
    """Something is missing: connect again, from where one stands."""


@dataclass(frozen=True)
class Event:
    """Something that the server told.

    Attributes:
        event: its name, such as `fl_status_update`; `snapshot` tells what is true where not everything could be
            recovered: forget what you knew, and go on from there.
        data: the payload, as docs/asyncapi.yaml describes it.
        stream, seq: its place; empty and 0 for a snapshot or a tick.
        timestamp: when it happened, by the server's clock; RFC 3339.
        key: of a tick: it replaces the one before it with the same key.
    """

    event: str
    data: dict[str, Any]
    stream: str = ""
    seq: int = 0
    timestamp: str = ""
    key: str = ""


@dataclass
class Follower:
    """A program's place in each stream; it outlives its connections."""

    positions: dict[str, server.Position]
    heartbeat_seconds: float = 60.0
    farewell: server.Bye | None = None
    refusal: str = ""
    owes_heartbeat: bool = False
    """The server asked whether one is there."""
    _epochs: dict[str, str] = field(default_factory=dict)
    _heads: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _skipped: set[str] = field(default_factory=set)
    _lost: dict[str, server.Position | None] = field(default_factory=dict)
    """Where one stood in streams of which the snapshot is still to tell what is true."""
    _ended: dict[str, None] = field(default_factory=dict)
    """Streams of runs whose end was told, in that order."""
    _begins: bool = True
    """Nothing is known yet: what happened before is told by the snapshot alone."""
    _names_none: bool = False
    """More is known than could be said, so that a snapshot comes."""

    def standing(self) -> dict[str, server.Position]:
        """Return where one stands; of runs that have ended, no more than one can say.

        What a snapshot is still to tell is not known yet.
        """
        stood = self.positions | self._lost
        return without_ended({name: one for name, one in stood.items() if one is not None}, self._ended)

    def query(self) -> str:
        """Begin a connection: return the query of its address, which says where one stands.

        It says nothing where more runs are open than an address holds: the end of one that it left out would never be
        told, whereas to one who says nothing a snapshot tells what does not join.
        """
        self.positions, self._lost = self.standing(), {}
        self._ended = {name: None for name in self._ended if name in self.positions}
        self.farewell, self.refusal, self.owes_heartbeat = None, "", False
        self._heads, self._numbers, self._skipped = {}, {}, set()
        self._begins = not self.positions
        places = [("since", f"{name}:{one.epoch}:{one.seq}") for name, one in self.positions.items() if one.epoch]
        self._names_none = len(self.positions) > MOST_POSITIONS
        return "" if self._names_none else urlencode(places, safe=":")

    def take(self, text: str | bytes) -> Iterator[Event]:
        """Take a frame; give what is new in it.

        Raises:
            Gap: what came does not join what is known.
            msgspec.DecodeError: it is no frame.
        """
        frame = server.decode_frame(text)
        match frame.event:
            case "recent_events" if frame.key is None:
                yield from self._recover(frame)
            case "snapshot":
                yield from self._begin_anew(frame)
            case "welcome" | "heartbeat" | "bye" | "error":
                self._control(server.decode_payload(frame.event, frame.data))
            case _ if frame.stream is not None and frame.seq is not None:
                yield from self._durable(frame, frame.stream, frame.seq)
            case _ if frame.key is not None and (frame.number or 0) > self._numbers.get(frame.key, -1):
                self._numbers[frame.key] = frame.number or 0
                data = msgspec.json.decode(frame.data)
                yield Event(frame.event, data, timestamp=frame.timestamp or "", key=frame.key)

    def _begin_anew(self, frame: server.Frame) -> Iterator[Event]:
        event = Event(frame.event, msgspec.json.decode(frame.data))
        yield event
        if event.data["more"]:
            return
        self._lost = {}
        if self._names_none:
            # What is not followed has ended, as the snapshot told.
            followed = event.data["streams"]
            self.positions = {name: one for name, one in self.positions.items() if name in followed}

    def _control(self, payload: server.Payload) -> None:
        match payload:
            case server.Welcome():
                self.heartbeat_seconds = payload.heartbeat_seconds
                self._epochs = {name: position.epoch for name, position in payload.streams.items()}
            case server.Heartbeat():
                self.owes_heartbeat = True
                self._compare(payload.s)
            case server.Bye():
                self.farewell = payload
            case server.Error():
                self.refusal = payload.message

    def _compare(self, heads: Mapping[str, int]) -> None:
        # A head told at the last heartbeat has had a whole interval to arrive.
        for name, head in self._heads.items():
            if name in self.positions and self.positions[name].seq < head:
                raise Gap(f"{name} reaches {head}, and nothing came after {self.positions[name].seq}")
        self._heads = dict(heads)

    def _durable(self, frame: server.Frame, stream: str, seq: int) -> Iterator[Event]:
        known = self.positions.get(stream)
        if known is not None and seq <= known.seq:
            return
        if known is not None and seq > known.seq + 1:
            raise Gap(f"{stream} goes on with {seq}, not with {known.seq + 1}")
        epoch = known.epoch if known else frame.epoch or self._epochs.get(stream, "")
        event = Event(frame.event, msgspec.json.decode(frame.data), stream, seq, frame.timestamp or "")
        yield event
        # After it was taken: whoever breaks off at an event finds it again.
        self._stand(stream, epoch, seq)
        self._note_end(event)

    def _recover(self, frame: server.Frame) -> Iterator[Event]:
        recent = msgspec.json.decode(frame.data, type=server.RecentEvents)
        stream, known = recent.stream, self.positions.get(recent.stream)
        if stream in self._skipped or not _joins(known, recent, begins=self._begins):
            # What is true at this point comes with the snapshot.
            self._lost.setdefault(stream, known)
            self._skipped.add(stream)
            self._ended.pop(stream, None)
            self._stand(stream, recent.epoch, recent.to)
        else:
            for logged in recent.events:
                if known is None or logged.seq > known.seq:
                    data = msgspec.json.decode(logged.data)
                    event = Event(logged.event, data, stream, logged.seq, logged.timestamp)
                    yield event
                    self._stand(stream, recent.epoch, logged.seq)
                    self._note_end(event)
            self._stand(stream, recent.epoch, max(recent.to, known.seq if known else 0))
        if not recent.more:
            self._skipped.discard(stream)

    def _note_end(self, event: Event) -> None:
        if event.event == server.FlStatusUpdate.event and event.data.get("state") in ENDED_RUN_STATES:
            self._ended[event.stream] = None

    def _stand(self, stream: str, epoch: str, seq: int) -> None:
        # A stream that was taken up after its first event has no epoch yet: the next connection says which it is.
        self.positions[stream] = server.Position(epoch=epoch, seq=seq)


def _joins(known: server.Position | None, recent: server.RecentEvents, *, begins: bool) -> bool:
    """Say whether events of the log go on from what is known without a hole, within one history."""
    if known is None:
        # A stream that began while one was away is news from its first event.
        return recent.since == 0 and not begins
    is_another = known.epoch not in ("", recent.epoch) or recent.reason == "epoch"
    # A history that ends before what is known is another one too, whatever it is called.
    return not is_another and recent.since <= known.seq and (recent.more or recent.to >= known.seq)
