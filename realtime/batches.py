"""Events that wait at the same time go out at the same time: a connection takes them with one write.

To hand a few hundred bytes to the system costs more than all that is done with them before, so that under load the
number of writes is what counts. Nothing waits for a batch to fill.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from realtime.frames import Frame
from realtime.messages import Logged, Tick

BATCH_BYTES = 16 * 1024
"""Not much, since what a peer's system does not take of it waits here past all limits."""


class Framed(Protocol):
    """What is sent as one frame."""

    @property
    def frame(self) -> Frame:
        """The frame, made once for all its recipients."""


Sent = TypeVar("Sent", bound=Framed)


class Batch:
    """Events for the same recipients, in order, and the bytes of all their frames."""

    __slots__ = ("events", "wire")

    def __init__(self, events: list[Logged | Tick]) -> None:
        self.events = events
        self.wire = wire_of(events)


def wire_of(events: Sequence[Framed]) -> bytes:
    """Return the bytes of events' frames, one after another."""
    return b"".join([event.frame.wire for event in events])


def portions_of(events: Iterable[Sent]) -> Iterator[list[Sent]]:
    """Cut events into portions of at most BATCH_BYTES, in order; one that is larger is a portion of its own."""
    portion: list[Sent] = []
    size = 0
    for event in events:
        if portion and size + len(event.frame.wire) > BATCH_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(event)
        size += len(event.frame.wire)
    if portion:
        yield portion
