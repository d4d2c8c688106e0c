"""The way out of `fl`: what happened, told to listeners that it does not know. Never its wiring."""

from dataclasses import dataclass
from datetime import datetime

from django.dispatch import Signal

from edge.protocol.server import DeviceTick


@dataclass(frozen=True)
class Recorded:
    """A durable event after its commit, with what decides who may see it.

    Attributes:
        task, public, in_trash: labels of its stream.
    """

    stream: str
    epoch: str
    seq: int
    event: str
    data: str
    timestamp: datetime
    task: str
    public: bool
    in_trash: bool = False


@dataclass(frozen=True)
class Ticked:
    """A best-effort event: the newest of each `key` wins; `stream` decides who may see it."""

    key: str
    stream: str
    event: str
    data: str
    timestamp: datetime


@dataclass(frozen=True)
class AtWork:
    """How far a device is in its part of a round; those of one round may be told together."""

    run_id: int
    round: int
    tick: DeviceTick
    timestamp: datetime


event_recorded = Signal()
"""After commit, once for each durable event: `recorded` (Recorded)."""

ticked = Signal()
"""At once, nothing is written: `tick` (Ticked)."""

device_at_work = Signal()
"""At once, nothing is written: `work` (AtWork)."""

work_available = Signal()
"""After commit: a round may have something to do now. Coordinators in this process listen and wake."""

device_barred = Signal()
"""After commit: a device was suspended or revoked and its connection must end; `device_id`, `reason`."""

device_replaced = Signal()
"""After commit: a device connected again; `device_id` and `connection_id` (of the older connection, which must end)."""

device_duplicated = Signal()
"""After commit: one device's connections replace each other again and again, so all are to end; `device_id`."""

person_changed = Signal()
"""After commit: a person's rights changed or ended; `user_id`."""
