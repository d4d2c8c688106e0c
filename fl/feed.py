"""How events read to a person: one table of lines, which the pages and their scripts both speak from.

A title or detail is text with places: `{device_name}`, or `{metrics.accuracy:percent}` with a format. An event whose
title has an empty place is not told; a part of the detail shows where all its places are filled. The scripts get the
same table as JSON and fill it the same way (static/js/feed.js); a test holds both against the same events.

The tables are in English; a word or a line is translated when a page takes it, places and all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from django.utils.formats import get_format
from django.utils.translation import get_language, gettext, override
from django.utils.translation import gettext_noop as _

from edge.protocol.server import DeviceStatus
from fl.lifecycle import AssignmentState, DeviceState, RoundState, RunState
from fl.models import Event

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Word:
    """How a state is shown: never by colour alone."""

    english: str
    tone: str = "plain"
    icon: str = "circle-dot"

    @property
    def word(self) -> str:
        """It in the reader's language."""
        return gettext(self.english)

    @property
    def within(self) -> str:
        """The same as it stands within a sentence."""
        return self.word[:1].lower() + self.word[1:]


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
    RunState.PENDING: Word(_("Not started"), icon="clock"),
    RunState.RUNNING: Word(_("Running"), "busy", "refresh-cw"),
    RunState.PAUSED: Word(_("Paused"), "warn", "pause"),
    RunState.COMPLETED: Word(_("Completed"), "good", "check"),
    RunState.FAILED: Word(_("Failed"), "bad", "octagon-x"),
    RunState.STOPPED: Word(_("Stopped"), "plain", "square"),
}
ROUND_WORDS = {
    RoundState.PENDING: Word(_("Waiting for devices"), "plain", "clock"),
    RoundState.TRAINING: Word(_("Training"), "busy", "refresh-cw"),
    RoundState.AGGREGATING: Word(_("Aggregating"), "work", "refresh-cw"),
    RoundState.EVALUATING: Word(_("Evaluating"), "work", "refresh-cw"),
    RoundState.COMPLETED: Word(_("Completed"), "good", "check"),
    RoundState.FAILED: Word(_("Failed"), "bad", "octagon-x"),
    RoundState.STOPPED: Word(_("Stopped"), "plain", "square"),
}
ASSIGNMENT_WORDS: dict[str, Word] = {
    AssignmentState.ASSIGNED: Word(_("Assigned"), "plain", "clock"),
    AssignmentState.TRAINING: Word(_("Training"), "busy", "refresh-cw"),
    AssignmentState.UPLOADING: Word(_("Uploading"), "work", "refresh-cw"),
    AssignmentState.ACCEPTED: Word(_("Received"), "good", "check"),
    AssignmentState.REJECTED: Word(_("Rejected"), "bad", "x"),
    AssignmentState.FAILED: Word(_("Failed"), "bad", "x"),
    AssignmentState.EXPIRED: Word(_("Expired"), "warn", "clock"),
    AssignmentState.CANCELLED: Word(_("Cancelled"), "plain", "ban"),
    AssignmentState.LATE: Word(_("Late"), "warn", "clock"),
}
TROUBLED = (
    *(AssignmentState.REJECTED, AssignmentState.FAILED, AssignmentState.EXPIRED, AssignmentState.LATE),
    AssignmentState.CANCELLED,
)
"""Devices of a round in these states stand before the others, which keep the order of their names: rows that jump
whenever a device gets further cannot be read."""
DEVICE_WORDS: dict[str, Word] = {
    DeviceState.PENDING: Word(_("Waits for approval"), "warn", "clock"),
    DeviceState.SUSPENDED: Word(_("Suspended"), "warn", "ban"),
    DeviceState.REVOKED: Word(_("Revoked"), "bad", "ban"),
    "offline": Word(_("Offline"), "off", "wifi-off"),
    "idle": Word(_("Online"), "good", "check"),
    **ASSIGNMENT_WORDS,
}

LINES: dict[str, Line | None] = {
    "fl_status_update.pending": Line(_("{run_name} was created"), ("{task}", "{strategy}", _("{rounds:int} rounds"))),
    "fl_status_update.paused": Line(_("{run_name} is paused"), ("{reason}",), "warn", "pause"),
    "fl_status_update.completed": Line(
        _("{run_name} is completed"), (_("{rounds:int} rounds"), "{reason}"), "good", "check"
    ),
    "fl_status_update.failed": Line(_("{run_name} failed"), ("{reason}",), "bad", "octagon-x"),
    "fl_status_update.stopped": Line(_("{run_name} was stopped"), ("{reason}",), "plain", "square"),
    "fl_status_update.running": Line(_("{run_name} is running"), ("{reason}",), "plain", "play"),
    "fl_status_update.running.pending": Line(_("Round {round}: {reason}"), (), "plain", "clock"),
    "fl_status_update.running.training": Line(
        _("Round {round} started"), (_("{selected:int} devices"),), "plain", "play"
    ),
    "fl_status_update.running.aggregating": None,
    "fl_status_update.running.evaluating": None,
    "fl_status_update.running.completed": None,
    "fl_status_update.running.failed": None,
    "training_progress.accepted": Line(
        _("{device_name} sent its update"),
        (
            _("{num_examples:int} examples"),
            _("local loss {metrics.loss:loss}"),
            _("accuracy {metrics.accuracy:percent}"),
        ),
        "good",
        "check",
    ),
    "training_progress.rejected": Line(_("The update of {device_name} was rejected"), ("{reason}",), "bad", "x"),
    "training_progress.failed": Line(_("{device_name} could not train"), ("{reason}",), "bad", "x"),
    "training_progress.expired": Line(_("{device_name} missed the round"), ("{reason}",), "warn", "clock"),
    "training_progress.cancelled": Line(_("{device_name} was told to stop"), ("{reason}",), "plain", "ban"),
    "training_progress.late": Line(_("The update of {device_name} came late"), ("{reason}",), "warn", "clock"),
    "training_progress.deadline_extended": Line(
        _("Round {round}: deadline extended by {duration_seconds:seconds}"), ("{reason}",), "plain", "timer"
    ),
    "training_progress.round_completed": Line(
        _("Round {round} is completed"),
        (
            _("accuracy {metrics.accuracy:percent}"),
            _("loss {metrics.loss:loss}"),
            _("{updates_received:int} updates"),
            "{duration_seconds:seconds}",
        ),
        "good",
        "check",
    ),
    "model_aggregation.completed": Line(
        _("Model version {version} is published"), ("{size_bytes:bytes}",), "work", "box"
    ),
    "model_aggregation.failed": Line(_("Aggregation of round {round} failed"), ("{reason}",), "bad", "octagon-x"),
    "device_status.pending": Line(_("{name} waits for approval"), (), "warn", "key-round"),
    "device_status.suspended": Line(_("{name} is suspended"), ("{reason}",), "warn", "ban"),
    "device_status.revoked": Line(_("{name} is revoked"), ("{reason}",), "bad", "ban"),
    "device_status.active.online": Line(_("{name} is online"), (_("version {edge_version}"),), "good", "cpu"),
    "device_status.active.offline": Line(_("{name} is offline"), ("{reason}",), "off", "wifi-off"),
    "error_notification.info": Line("{title}", ("{detail}",), "plain", "info"),
    "error_notification.warning": Line("{title}", ("{detail}", "{action}"), "warn", "triangle-alert"),
    "error_notification.error": Line("{title}", ("{detail}", "{action}"), "bad", "circle-alert"),
    "run_trash.in_trash": Line(_("{run_name} was moved to the trash"), (), "plain", "trash-2"),
    "run_trash.restored": Line(_("{run_name} was restored from the trash"), (), "plain", "rotate-cw"),
    "broadcast.info": Line("{message}", (_("from {sender}"),), "plain", "megaphone"),
    "broadcast.warning": Line("{message}", (_("from {sender}"),), "warn", "megaphone"),
    "broadcast.error": Line("{message}", (_("from {sender}"),), "bad", "megaphone"),
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


@cache
def marks_of(language: str | None) -> dict[str, str]:
    """Return what a language writes before a number's fraction, between its thousands and after percentage points."""
    with override(language):
        return {
            "decimal": str(get_format("DECIMAL_SEPARATOR")),
            "group": str(get_format("THOUSAND_SEPARATOR")),
            # Translators: percentage points, in short
            "points": gettext("pp"),
        }


def _number(value: float, form: str) -> str:
    """Write a number in a form of Python's, with the marks of the reader's language."""
    marks = marks_of(get_language())
    return format(value, form).translate({ord("."): marks["decimal"], ord(","): marks["group"]})


def plain(value: float, digits: int = 12) -> str:
    """Write a number with the places that it has, up to so many digits."""
    return _number(value, f".{digits}g")


def percent(share: float | None) -> str:
    """Write a share as per cent with two places; nothing for none."""
    return "" if share is None else f"{_number(share * 100, '.2f')} %"


def loss(value: float | None) -> str:
    """Write a loss with four places; nothing for none."""
    return "" if value is None else _number(value, ".4f")


def points(difference: float | None) -> str:
    """Write a difference of two shares in percentage points, with its sign: +0.62 pp, −1.20 pp; nothing for none."""
    if difference is None:
        return ""
    return f"{_number(difference * 100, '+.2f').replace('-', '−')} {marks_of(get_language())['points']}"


def change(difference: float | None) -> str:
    """Write a difference of two losses with its sign: +0.0074, −0.0031; nothing for none."""
    return "" if difference is None else _number(difference, "+.4f").replace("-", "−")


def seconds(value: float | None) -> str:
    """Write a duration: 0.42 s, 40.6 s, 2 min 5 s, 1 h 3 min; nothing for none."""
    if value is None:
        return ""
    if value < 10:
        return f"{_number(value, '.2f')} s"
    if value < 60:
        return f"{_number(value, '.1f')} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def integer(value: float | None) -> str:
    """Write a whole number with a mark between thousands; nothing for none."""
    return "" if value is None else _number(round(value), ",")


def size(value: float | None) -> str:
    """Write a number of bytes: 812 B, 1.2 kB, 3.4 MB; nothing for none."""
    if value is None:
        return ""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{_number(value / factor, '.1f')} {unit}"
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


def reading_of(event: str, data: Data) -> tuple[str, str] | None:
    """Return whose status an event tells and how it reads; None where it tells none.

    Of statuses in a row that read alike the first is told: a run's counts change, a device's name or data may.
    """
    key = find_key(event, data)
    match event:
        case "fl_status_update":
            number = data.get("round")
            return f"run:{data.get('run_id')}", f"{key} {'' if number is None else number}"
        case "device_status":
            return f"device:{data.get('device_id')}", key
    return None


def tell(events: Iterable[Event]) -> list[Told]:
    """Tell events, given oldest first, newest first; a status that reads like the one told before it is left out."""
    return fold([told for _, told in tell_each(events) if told is not None][::-1])


def tell_each(events: Iterable[Event]) -> Iterator[tuple[Event, Told | None]]:
    """Tell events in their order, which is oldest first; beside one that is not told stands None."""
    last: dict[str, str] = {}
    for event in events:
        data: Data = msgspec.json.decode(event.data)
        key = find_key(event.event, data)
        line = LINES.get(key)
        title = fill(gettext(line.title), data) if line else None
        if line is None or title is None:
            yield event, None
            continue
        if status := reading_of(event.event, data):
            whose, reading = status
            if last.get(whose) == reading:
                yield event, None
                continue
            last[whose] = reading
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
        detail=joined(part for part in (fill(gettext(text), data) for text in line.detail) if part),
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
    """Return the tables for the scripts in the reader's language, as plain JSON values."""
    tables = {
        "run": _spoken(RUN_WORDS),
        "round": _spoken(ROUND_WORDS),
        "assignment": _spoken(ASSIGNMENT_WORDS),
        "device": _spoken(DEVICE_WORDS),
        "troubled": TROUBLED,
        "lines": {key: line and _translated(line) for key, line in LINES.items()},
        "keys": KEYS,
        "numbers": marks_of(get_language()),
    }
    plain: dict[str, Any] = msgspec.to_builtins(tables)
    return plain


def _spoken(words: Mapping[Any, Word]) -> dict[str, dict[str, str]]:
    return {str(key): {"word": word.word, "tone": word.tone, "icon": word.icon} for key, word in words.items()}


def _translated(line: Line) -> Line:
    return replace(line, title=gettext(line.title), detail=tuple(gettext(text) for text in line.detail))
