"""State fields: a text, its allowed values in the database, and its type in Python."""

from collections.abc import Iterable
from enum import StrEnum

from django.db import models


def choices_of(states: type[StrEnum]) -> list[tuple[str, str]]:
    """Return the choices of a field that holds one of these states."""
    return [(state.value, state.value) for state in states]


def one_of(field: str, states: Iterable[StrEnum], name: str) -> models.CheckConstraint:
    """Return the constraint that a field holds one of these states, in the database too."""
    return models.CheckConstraint(condition=models.Q(**{f"{field}__in": [str(state) for state in states]}), name=name)
