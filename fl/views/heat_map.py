"""The picture of who took part in which round: cells become one path for each kind, so that many cost few nodes."""

from dataclasses import dataclass

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_noop as _

from fl.feed import ASSIGNMENT_WORDS, Word
from fl.lifecycle import AssignmentState
from fl.queries.participation import IN_PROGRESS, LETTERS, NOT_SELECTED, Participation

STEP, ROW = 10, 24
"""Width of a round's column and height of a device's row, in pixels."""
HEAD = 20
"""Height of the line of round numbers."""
GAP, AIR = 1, 3
"""What is left free beside a cell, and above and below it."""
TICK_EVERY = 10


@dataclass(frozen=True)
class Kind:
    """A kind of cell: its letter, name, word, and the hatching that tells it apart without colour."""

    letter: str
    name: str
    word: Word
    hatching: str


def _kind(state: AssignmentState, hatching: str) -> Kind:
    return Kind(LETTERS[state], state, ASSIGNMENT_WORDS[state], hatching)


KINDS = (
    _kind(AssignmentState.ACCEPTED, ""),
    _kind(AssignmentState.LATE, "M-1 1 1-1M0 6 6 0M5 7 7 5"),
    _kind(AssignmentState.REJECTED, "M0 3H6M3 0V6"),
    _kind(AssignmentState.FAILED, "M0 3H6"),
    _kind(AssignmentState.EXPIRED, "M3 0V6"),
    _kind(AssignmentState.CANCELLED, "M-1 5 1 7M0 0 6 6M5-1 7 1"),
    Kind(IN_PROGRESS, "open", Word(_("In progress")), "M3 2V4"),
    Kind(NOT_SELECTED, "none", Word(_("Not selected")), ""),
)
"""All kinds of cells, in the order of the legend; hatchings are paths in a tile of 6 by 6."""


@dataclass(frozen=True)
class Drawn:
    """A kind with its cells as one SVG path, and their number."""

    kind: Kind
    path: str
    count: int


@dataclass(frozen=True)
class HeatMap:
    """What a template draws."""

    width: int
    height: int
    drawn: list[Drawn]
    ticks: list[tuple[float, int]]
    summary: str


def heat_map(found: Participation) -> HeatMap:
    """Return the picture of a page of devices, rows in their order, columns from the first round shown to the last."""
    columns = max(0, found.last - found.first + 1)
    rows = [found.cells[parts.device_id] for parts in found.devices]
    counts = found.counts
    drawn = [Drawn(kind, _path(kind.letter, rows), counts[kind.letter]) for kind in KINDS]
    numbers = [number for number in range(found.first, found.last + 1) if number % TICK_EVERY == 0]
    return HeatMap(
        width=columns * STEP,
        height=HEAD + len(rows) * ROW,
        drawn=drawn,
        ticks=[((number - found.first + 0.5) * STEP, number) for number in numbers or [found.first]],
        summary=_summary(found, drawn),
    )


def _path(letter: str, rows: list[str]) -> str:
    shape = f"h{STEP - GAP}v{ROW - 2 * AIR}h-{STEP - GAP}z"
    return "".join(
        f"M{column * STEP} {HEAD + row * ROW + AIR}{shape}"
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
        if cell == letter
    )


def _summary(found: Participation, drawn: list[Drawn]) -> str:
    told = ", ".join(f"{each.count} {each.kind.word.within}" for each in drawn if each.count)
    count = len(found.devices)
    sentence = ngettext(
        "Parts of {count} device in rounds {first} to {last}: {parts}",
        "Parts of {count} devices in rounds {first} to {last}: {parts}",
        count,
    )
    return sentence.format(count=count, first=found.first, last=found.last, parts=told or gettext("none"))
