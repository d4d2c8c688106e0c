"""Events that wait at the same time go out at the same time: a connection takes them with one write.

To hand a few hundred bytes to the system costs more than all that is done with them before, so that under load the
number of writes is what counts. Nothing waits for a batch to fill.
"""

from collections.abc import Iterable, Iterator

from realtime.messages import Logged, Tick

BATCH_BYTES = 16 * 1024
"""Not much, since what a peer's system does not take of it waits here past all limits."""


class Batch:
    """One or more events for the same recipients, in order, and the bytes of all their frames."""

    __slots__ = ("events", "wire")

    def __init__(self, events: list[Logged | Tick]) -> None:
        self.events = events
        self.wire = wire_of(events)


def wire_of(events: list[Logged | Tick]) -> bytes:
    """Return the bytes of events' frames, one after another."""
    return events[0].frame.wire if len(events) == 1 else b"".join([event.frame.wire for event in events])


def batches_of(events: Iterable[Logged | Tick]) -> Iterator[Batch]:
    """Put events into batches of at most BATCH_BYTES, in order; an event that is larger has one of its own."""
    batch: list[Logged | Tick] = []
    size = 0
    for event in events:
        if batch and size + len(event.frame.wire) > BATCH_BYTES:
            yield Batch(batch)
            batch, size = [], 0
        batch.append(event)
        size += len(event.frame.wire)
    if batch:
        yield Batch(batch)
