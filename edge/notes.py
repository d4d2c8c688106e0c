"""What a device tells the person or program that runs it: one sentence each, with its facts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Fact = str | int | float | bool | None
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Note:
    """One thing that happened.

    Attributes:
        kind: a stable name for programs: connected, disconnected, assignment, trained, cancelled, update, failure,
            model, command, notice, problem, fleet.
        text: one sentence for people.
        facts: what programs need of it.
    """

    kind: str
    text: str
    level: Level = "info"
    facts: Mapping[str, Fact] = field(default_factory=dict)


Tell = Callable[[Note], None]
"""Takes a note; called from several threads, and never blocks for long."""


def tell_nobody(note: Note) -> None:
    """Take a note and leave it at that: for tests and programs that look elsewhere."""
