"""What templates say in the words of `fl.feed`: icons, numbers with units, states, fields that scripts fill."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from django import template
from django.templatetags.static import static
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_noop as _

from edge.protocol.server import DeviceStatus, Spread, TrainingProgress
from fl import feed
from fl.feed import Word
from fl.queries.runs import RunView
from fl.round_lines import RoundLine

register = template.Library()


def _of_template(format_number: Callable[[float | None], str]) -> Callable[[Any], str]:
    """Make a filter of a format; what a template does not find comes as an empty text."""

    def written(value: Any) -> str:
        return format_number(value if isinstance(value, int | float) else None)

    return written


UNKNOWN = Word(_("Unknown"), icon="info")

for _name, _format in (
    ("percent", feed.percent),
    ("loss", feed.loss),
    ("points", feed.points),
    ("change", feed.change),
    ("seconds", feed.seconds),
    ("integer", feed.integer),
    ("size", feed.size),
):
    register.filter(_name, _of_template(_format))


@register.filter
def share(value: Any) -> str:
    """Write a share of work as whole per cent; nothing for none."""
    return f"{round(value * 100)} %" if isinstance(value, int | float) else ""


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """Draw an icon of the sprite; words beside it say what it means, so it is hidden from screen readers."""
    sprite = static("vendor/lucide/sprite.svg")
    classes = f"icon {extra}".strip()
    return format_html('<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>', classes, sprite, name)


@register.filter
def run_word(state: str) -> Word:
    """Return how a run's state is shown."""
    return {str(key): word for key, word in feed.RUN_WORDS.items()}.get(state, UNKNOWN)


@register.filter
def round_word(state: str) -> Word:
    """Return how a round's state is shown."""
    return {str(key): word for key, word in feed.ROUND_WORDS.items()}.get(state, UNKNOWN)


@register.filter
def assignment_word(state: str) -> Word:
    """Return how an assignment's state is shown."""
    return feed.ASSIGNMENT_WORDS.get(state, UNKNOWN)


@register.filter
def device_word(device: DeviceStatus) -> Word:
    """Return how a device is shown: what bars it, else that it is offline, else what it does."""
    return feed.DEVICE_WORDS.get(feed.device_key(device), UNKNOWN)


SAID = {
    **{"viewer": _("viewer"), "operator": _("operator"), "admin": _("admin"), "none": _("none")},
    **{"pending": _("pending"), "active": _("active"), "suspended": _("suspended"), "revoked": _("revoked")},
    **{"online": _("online"), "offline": _("offline")},
}
"""Roles, and what devices are: names that programs know → words for people."""
METRICS = {"accuracy": _("accuracy"), "loss": _("loss"), "both": _("both")}


@register.filter
def said(name: str) -> str:
    """Return the word for a role, or for the state or the presence of a device."""
    return gettext(SAID[name]) if name in SAID else name


@register.filter
def metric_word(name: str) -> str:
    """Return what a metric is called; one that only its task knows is called as the task does."""
    return gettext(METRICS[name]) if name in METRICS else name


@register.filter
def metric(line: RoundLine | None, name: str) -> float | None:
    """Return a metric of a round's model as the server measured it; None where it did not."""
    return line.metrics.get(name) if line and line.metrics else None


@register.filter
def moved(view: RunView, name: str) -> float | None:
    """Return by how much a metric differs from the round before, both as the server measured them; else None."""
    newer, older = metric(view.newest, name), metric(view.before_newest, name)
    return newer - older if newer is not None and older is not None else None


@register.filter
def on_devices(line: RoundLine | None, name: str) -> float | None:
    """Return the weighted mean of a metric over the devices of a round; None where none reported it."""
    spread: Spread | None = line.device_metrics.get(name) if line else None
    return spread.mean if spread else None


MOSAIC_COLUMNS, MOSAIC_STEP = 24, 14
"""As in static/js/mosaic.js."""
LISTED, NOTABLE = 32, 6
"""Above so many devices a mosaic shows them all, and the list only those that want a look; as in parts/round.js."""


@dataclass(frozen=True)
class Cell:
    """A square of a mosaic: where it is, what it stands for."""

    x: int
    y: int
    name: str
    word: Word


@dataclass(frozen=True)
class Mosaic:
    """The devices of a round: all as squares where they are many, and those that are listed."""

    cells: list[Cell]
    listed: list[TrainingProgress]

    @property
    def width(self) -> int:
        return MOSAIC_COLUMNS * MOSAIC_STEP

    @property
    def height(self) -> int:
        return max(1, -(-len(self.cells) // MOSAIC_COLUMNS)) * MOSAIC_STEP

    @property
    def summary(self) -> str:
        """How many there are of each state."""
        counts = Counter(cell.word.within for cell in self.cells)
        parts = ", ".join(f"{count} {word}" for word, count in counts.items())
        many = ngettext("{count} device", "{count} devices", len(self.cells)).format(count=len(self.cells))
        return f"{many}: {parts}"


@register.simple_tag
def mosaic_of(parts: Sequence[TrainingProgress]) -> Mosaic:
    """Return how the devices' parts of a round are shown; those in trouble come first."""
    if len(parts) <= LISTED:
        return Mosaic(cells=[], listed=list(parts))
    cells = [
        Cell(
            x=index % MOSAIC_COLUMNS * MOSAIC_STEP,
            y=index // MOSAIC_COLUMNS * MOSAIC_STEP,
            name=part.device_name or "",
            word=assignment_word(part.phase),
        )
        for index, part in enumerate(parts)
    ]
    return Mosaic(cells=cells, listed=[part for part in parts if part.phase != "accepted"][:NOTABLE])


@register.filter
def examples_of(device: DeviceStatus, task: str) -> int | None:
    """Return how many examples of a task a device has."""
    return device.num_examples.get(task)


@register.filter
def get(mapping: Mapping[Any, Any], key: object) -> Any:
    """Return the value of a key, or None."""
    return mapping.get(key)


class _EncoderOfStructs(json.JSONEncoder):
    """Lets msgspec write what Django makes safe within a page."""

    def encode(self, o: object) -> str:
        """Return a value of structs and dataclasses as JSON."""
        return msgspec.json.encode(o).decode()


@register.simple_tag
def state_script(state: object, element_id: str) -> SafeString:
    """Write a value of structs and dataclasses as JSON that scripts read; numbers that are not finite become null."""
    return json_script(state, element_id, encoder=_EncoderOfStructs)
