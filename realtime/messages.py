"""What travels over the channel layer: made from events on one side, read by hubs on the other.

    qflare.event   a frame for everybody in the group; with `stream`, `epoch` and `seq` it is a durable event, with
                   `key` a tick, with neither it goes to all members as it is
    qflare.close   ends the connections of the group, or one of them
    qflare.recheck the rights of the group's people have changed: look at once
    qflare.probe   what a process says to itself, to see whether it is heard

A message is a flat dict of texts and numbers, since layers may copy, encode or share it. Messages to `device.<id>` and
`user.<id>` name their group, because a hub receives all of these on one channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fl.signals import Recorded
from realtime.frames import Frame

EVENT = "qflare.event"
CLOSE = "qflare.close"
RECHECK = "qflare.recheck"
PROBE = "qflare.probe"

LayerMessage = dict[str, Any]
Addressed = tuple[str, LayerMessage]
"""A group, and a message to it."""


@dataclass(frozen=True)
class Labels:
    """What decides, beside its name, who may see a stream."""

    task: str = ""
    public: bool = False
    in_trash: bool = False


class Logged:
    """A durable event on its way to connections: its position, and its frame, encoded once."""

    __slots__ = ("epoch", "frame", "labels", "seq", "stream")

    def __init__(self, stream: str, epoch: str, seq: int, frame: Frame, labels: Labels) -> None:
        self.stream = stream
        self.epoch = epoch
        self.seq = seq
        self.frame = frame
        self.labels = labels


class Tick:
    """What is soon out of date, on its way to connections: the newest of its key counts; its frame, encoded once."""

    __slots__ = ("frame", "key", "labels", "stream")

    def __init__(self, stream: str, key: str, frame: Frame, labels: Labels) -> None:
        self.stream = stream
        self.key = key
        self.frame = frame
        self.labels = labels


@dataclass(frozen=True)
class Ending:
    """Which connections of a group are to end, and why; without `connection_id` and `session` all of them."""

    code: int
    reason: str
    connection_id: str = ""
    session: str = ""


def event_message(group: str, recorded: Recorded, frame: str) -> LayerMessage:
    """Return the message that carries a durable event to a group."""
    return {
        "type": EVENT,
        "group": group,
        "stream": recorded.stream,
        "epoch": recorded.epoch,
        "seq": recorded.seq,
        "task": recorded.task,
        "public": recorded.public,
        "in_trash": recorded.in_trash,
        "frame": frame,
    }


def tick_message(group: str, stream: str, key: str, number: int, frame: str) -> LayerMessage:
    """Return the message that carries a tick to a group."""
    return {"type": EVENT, "group": group, "stream": stream, "key": key, "number": number, "frame": frame}


def close_message(group: str, ending: Ending) -> LayerMessage:
    """Return the message that ends connections of a group."""
    return {
        "type": CLOSE,
        "group": group,
        "code": ending.code,
        "reason": ending.reason,
        "connection_id": ending.connection_id,
        "session": ending.session,
    }


def recheck_message(group: str) -> LayerMessage:
    """Return the message that has the rights of a group's people looked at again."""
    return {"type": RECHECK, "group": group}


def probe_message(group: str, number: int) -> LayerMessage:
    """Return what a process says to itself alone, to see whether the layer carries it."""
    return {"type": PROBE, "group": group, "number": number}


def shortened(addressed: Sequence[Addressed]) -> list[Addressed]:
    """Leave out what a later message to the same group stands for: a newer event of the stream, or tick of the key.

    A hub that hears of an event reads those before it, which it has not handed out, from the log.
    """
    kept: list[Addressed] = []
    stood_for: set[tuple[str, str, str]] = set()
    for group, message in reversed(addressed):
        kind = "stream" if "seq" in message else "key" if "key" in message else ""
        if kind:
            what = (group, kind, message[kind])
            if what in stood_for:
                continue
            stood_for.add(what)
        kept.append((group, message))
    return kept[::-1]


def logged_of(message: LayerMessage) -> Logged:
    """Read a durable event.

    Raises:
        KeyError: a field is missing.
    """
    labels = Labels(
        task=message.get("task", ""),
        public=bool(message.get("public", False)),
        in_trash=bool(message.get("in_trash", False)),
    )
    return Logged(message["stream"], message["epoch"], message["seq"], Frame(message["frame"]), labels)


def tick_of(message: LayerMessage, labels: Labels) -> Tick:
    """Read a tick.

    Raises:
        KeyError: a field is missing.
    """
    return Tick(message["stream"], message["key"], Frame(message["frame"]), labels)


def ending_of(message: LayerMessage) -> Ending:
    """Read what a `qflare.close` asks for.

    Raises:
        KeyError: a field is missing.
    """
    return Ending(
        code=message["code"],
        reason=message.get("reason", ""),
        connection_id=message.get("connection_id", ""),
        session=message.get("session", ""),
    )
