"""How events read to a person: one table of lines, which the pages and their scripts both speak from.

A title or detail is text with places: `{device_name}`, or `{metrics.accuracy:percent}` with a format. An event whose
title has an empty place is not told; a part of the detail shows where all its places are filled. The scripts get the
same table as JSON and fill it the same way (static/js/feed.js); a test holds both against the same events.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from edge.protocol.server import DeviceStatus
from fl.lifecycle import AssignmentState, DeviceState, RoundState, RunState
from fl.models import Event

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Word:
    """How a state is shown: never by colour alone."""

    word: str
    tone: str = "plain"
    icon: str = "circle-dot"


@dataclass(frozen=True)
class Line:
    """How an event is told."""

    title: str
    detail: tuple[str, ...] = ()
    tone: str = "plain"
    icon: str = "info"


@dataclass(frozen=True)
class Told:
    """An event as a page shows it."""

    stream: str
    seq: int
    timestamp: datetime
    title: str
    detail: str
    tone: str
    icon: str
    count: int = 1
    """How many equal ones it stands for."""


RUN_WORDS = {
    RunState.PENDING: Word("Not started", icon="clock"),
    RunState.RUNNING: Word("Running", "busy", "refresh-cw"),
    RunState.PAUSED: Word("Paused", "warn", "pause"),
    RunState.COMPLETED: Word("Completed", "good", "check"),
    RunState.FAILED: Word("Failed", "bad", "octagon-x"),
    RunState.STOPPED: Word("Stopped", "plain", "square"),
}
ROUND_WORDS = {
    RoundState.PENDING: Word("Waiting for devices", "plain", "clock"),
    RoundState.TRAINING: Word("Training", "busy", "refresh-cw"),
    RoundState.AGGREGATING: Word("Aggregating", "work", "refresh-cw"),
    RoundState.EVALUATING: Word("Evaluating", "work", "refresh-cw"),
    RoundState.COMPLETED: Word("Completed", "good", "check"),
    RoundState.FAILED: Word("Failed", "bad", "octagon-x"),
    RoundState.STOPPED: Word("Stopped", "plain", "square"),
}
ASSIGNMENT_WORDS: dict[str, Word] = {
    AssignmentState.ASSIGNED: Word("Assigned", "plain", "clock"),
    AssignmentState.TRAINING: Word("Training", "busy", "refresh-cw"),
    AssignmentState.UPLOADING: Word("Uploading", "work", "refresh-cw"),
    AssignmentState.ACCEPTED: Word("Received", "good", "check"),
    AssignmentState.REJECTED: Word("Rejected", "bad", "x"),
    AssignmentState.FAILED: Word("Failed", "bad", "x"),
    AssignmentState.EXPIRED: Word("Expired", "warn", "clock"),
    AssignmentState.CANCELLED: Word("Cancelled", "plain", "ban"),
    AssignmentState.LATE: Word("Late", "warn", "clock"),
}
TROUBLED = (
    *(AssignmentState.REJECTED, AssignmentState.FAILED, AssignmentState.EXPIRED, AssignmentState.LATE),
    AssignmentState.CANCELLED,
)
"""Devices of a round in these states stand before the others, which keep the order of their names: rows that jump
whenever a device gets further cannot be read."""
DEVICE_WORDS: dict[str, Word] = {
    DeviceState.PENDING: Word("Waits for approval", "warn", "clock"),
    DeviceState.SUSPENDED: Word("Suspended", "warn", "ban"),
    DeviceState.REVOKED: Word("Revoked", "bad", "ban"),
    "offline": Word("Offline", "off", "wifi-off"),
    "idle": Word("Online", "good", "check"),
    **ASSIGNMENT_WORDS,
}

LINES: dict[str, Line | None] = {
    "fl_status_update.pending": Line("{run_name} was created", ("{task}", "{strategy}", "{rounds:int} rounds")),
    "fl_status_update.paused": Line("{run_name} is paused", ("{reason}",), "warn", "pause"),
    "fl_status_update.completed": Line("{run_name} is completed", ("{rounds:int} rounds", "{reason}"), "good", "check"),
    "fl_status_update.failed": Line("{run_name} failed", ("{reason}",), "bad", "octagon-x"),
    "fl_status_update.stopped": Line("{run_name} was stopped", ("{reason}",), "plain", "square"),
    "fl_status_update.running": Line("{run_name} is running", ("{reason}",), "plain", "play"),
    "fl_status_update.running.pending": Line("Round {round}: {reason}", (), "plain", "clock"),
    "fl_status_update.running.training": Line("Round {round} started", ("{selected:int} devices",), "plain", "play"),
    "fl_status_update.running.aggregating": None,
    "fl_status_update.running.evaluating": None,
    "fl_status_update.running.completed": None,
    "fl_status_update.running.failed": None,
    "training_progress.accepted": Line(
        "{device_name} sent its update",
        ("{num_examples:int} examples", "local loss {metrics.loss:loss}", "accuracy {metrics.accuracy:percent}"),
        "good",
        "check",
    ),
    "training_progress.rejected": Line("The update of {device_name} was rejected", ("{reason}",), "bad", "x"),
    "training_progress.failed": Line("{device_name} could not train", ("{reason}",), "bad", "x"),
    "training_progress.expired": Line("{device_name} missed the round", ("{reason}",), "warn", "clock"),
    "training_progress.cancelled": Line("{device_name} was told to stop", ("{reason}",), "plain", "ban"),
    "training_progress.late": Line("The update of {device_name} came late", ("{reason}",), "warn", "clock"),
    "training_progress.round_completed": Line(
        "Round {round} is completed",
        (
            "accuracy {metrics.accuracy:percent}",
            "loss {metrics.loss:loss}",
            "{updates_received:int} updates",
            "{duration_seconds:seconds}",
        ),
        "good",
        "check",
    ),
    "model_aggregation.completed": Line("Model version {version} is published", ("{size_bytes:bytes}",), "work", "box"),
    "model_aggregation.failed": Line("Aggregation of round {round} failed", ("{reason}",), "bad", "octagon-x"),
    "device_status.pending": Line("{name} waits for approval", (), "warn", "key-round"),
    "device_status.suspended": Line("{name} is suspended", ("{reason}",), "warn", "ban"),
    "device_status.revoked": Line("{name} is revoked", ("{reason}",), "bad", "ban"),
    "device_status.active.online": Line("{name} is online", ("version {edge_version}",), "good", "cpu"),
    "device_status.active.offline": Line("{name} is offline", ("{reason}",), "off", "wifi-off"),
    "error_notification.info": Line("{title}", ("{detail}",), "plain", "info"),
    "error_notification.warning": Line("{title}", ("{detail}", "{action}"), "warn", "triangle-alert"),
    "error_notification.error": Line("{title}", ("{detail}", "{action}"), "bad", "circle-alert"),
    "run_trash.in_trash": Line("{run_name} was moved to the trash", (), "plain", "trash-2"),
    "run_trash.restored": Line("{run_name} was restored from the trash", (), "plain", "rotate-cw"),
    "broadcast.info": Line("{message}", ("from {sender}",), "plain", "megaphone"),
    "broadcast.warning": Line("{message}", ("from {sender}",), "warn", "megaphone"),
    "broadcast.error": Line("{message}", ("from {sender}",), "bad", "megaphone"),
}
"""Event and its states, joined by dots → line; the longest key that fits is used. An event that has none, or None, is
not told: another event says the same, or nobody waits for it."""

KEYS: dict[str, tuple[str, ...]] = {
    "fl_status_update": ("state", "round_state"),
    "training_progress": ("phase",),
    "model_aggregation": ("phase",),
    "device_status": ("state", "presence"),
    "error_notification": ("severity",),
    "run_trash": ("state",),
    "broadcast": ("level",),
}
"""Which fields of an event's data make up its key."""


# ── formats, the same as in static/js/format.js ───────────────────────────────────────────────────────────────────────


def percent(share: float | None) -> str:
    """Write a share as per cent with two places; nothing for none."""
    return "" if share is None else f"{share * 100:.2f} %"


def loss(value: float | None) -> str:
    """Write a loss with four places; nothing for none."""
    return "" if value is None else f"{value:.4f}"


def points(difference: float | None) -> str:
    """Write a difference of two shares in percentage points, with its sign: +0.62 pp, −1.20 pp; nothing for none."""
    return "" if difference is None else f"{difference * 100:+.2f} pp".replace("-", "−")


def change(difference: float | None) -> str:
    """Write a difference of two losses with its sign: +0.0074, −0.0031; nothing for none."""
    return "" if difference is None else f"{difference:+.4f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """Write a duration: 0.42 s, 40.6 s, 2 min 5 s, 1 h 3 min; nothing for none."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def integer(value: float | None) -> str:
    """Write a whole number with a comma between thousands; nothing for none."""
    return "" if value is None else f"{round(value):,}"


def size(value: float | None) -> str:
    """Write a number of bytes: 812 B, 1.2 kB, 3.4 MB; nothing for none."""
    if value is None:
        return ""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def some(value: float | None) -> str:
    """Write a count only where it is not zero."""
    return integer(value) if value else ""


FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "loss": loss,
    "points": points,
    "change": change,
    "seconds": seconds,
    "int": integer,
    "bytes": size,
    "some": some,
    "": lambda value: "" if value is None else str(value),
}

_PLACE = re.compile(r"\{([a-z_.]+)(?::([a-z]+))?\}")


def fill(text: str, data: Data) -> str | None:
    """Fill the places of a text; None where one of them is empty."""
    filled = [_value(data, name, style or "") for name, style in _PLACE.findall(text)]
    if not all(filled):
        return None
    values = iter(filled)
    return _PLACE.sub(lambda _: next(values), text)


def _value(data: Data, path: str, style: str) -> str:
    value: Any = data
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return FORMATS[style](value)


def find_key(event: str, data: Data) -> str:
    """Return the longest key of LINES that fits an event, or ""."""
    key = ".".join([event, *(str(data.get(field) or "") for field in KEYS.get(event, ()))])
    while key and key not in LINES:
        key = key.rpartition(".")[0]
    return key


def tell(events: Iterable[Event]) -> list[Told]:
    """Tell events, given oldest first, newest first; a status that reads like the one told before it is left out."""
    return fold([told for _, told in tell_each(events) if told is not None][::-1])


def tell_each(events: Iterable[Event]) -> Iterator[tuple[Event, Told | None]]:
    """Tell events in their order, which is oldest first; beside one that is not told stands None."""
    last: dict[str, tuple[str, Any]] = {}
    for event in events:
        data: Data = msgspec.json.decode(event.data)
        key = find_key(event.event, data)
        line = LINES.get(key)
        title = fill(line.title, data) if line else None
        if line is None or title is None:
            yield event, None
            continue
        if event.event == "fl_status_update":
            reading = (key, data.get("round"))
            if last.get(event.stream_id) == reading:
                yield event, None
                continue
            last[event.stream_id] = reading
        yield event, _told(event, line, title, data)


def fold(told: Iterable[Told]) -> list[Told]:
    """Make one line of equal troubles that follow each other, newest first: the newest, with how many they are."""
    folded: list[Told] = []
    for line in told:
        newer = folded[-1] if folded else None
        if newer and line.tone in TROUBLE and (line.title, line.detail) == (newer.title, newer.detail):
            folded[-1] = replace(newer, count=newer.count + line.count)
        else:
            folded.append(line)
    return folded


TROUBLE = frozenset({"warn", "bad"})
"""Tones of lines that want a look."""
SEVERITIES = {"warnings": TROUBLE, "errors": frozenset({"bad"})}
"""What a feed can be narrowed to, and the tones that are left; as in static/js/feed.js."""


def _told(event: Event, line: Line, title: str, data: Data) -> Told:
    return Told(
        stream=event.stream_id,
        seq=event.seq,
        timestamp=event.timestamp,
        title=title,
        detail=joined(part for part in (fill(text, data) for text in line.detail) if part),
        tone=line.tone,
        icon=line.icon,
        count=data.get("count", 1) if event.event == "error_notification" else 1,
    )


def device_key(device: DeviceStatus) -> str:
    """Return the key of DEVICE_WORDS by which a device is shown: what bars it, else offline, else what it does."""
    if device.state != DeviceState.ACTIVE:
        return device.state
    return "offline" if device.presence == "offline" else device.activity


def joined(parts: Iterable[str]) -> str:
    """Put the parts of a detail behind each other: with commas, but for those that are sentences."""
    text = ""
    for part in parts:
        text += part if not text else f" {part}" if text.endswith(".") else f", {part}"
    return text


def vocabulary() -> dict[str, Any]:
    """Return the tables for the scripts, as plain JSON values."""
    tables = {
        "run": RUN_WORDS,
        "round": ROUND_WORDS,
        "assignment": ASSIGNMENT_WORDS,
        "device": DEVICE_WORDS,
        "troubled": TROUBLED,
        "lines": LINES,
        "keys": KEYS,
    }
    plain: dict[str, Any] = msgspec.to_builtins(tables)
    return plain
