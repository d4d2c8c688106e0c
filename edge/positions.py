"""In how many streams a client says where it stands: so many that it can always connect, whatever it has seen."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

MOST_POSITIONS = 150
"""About 40 bytes each in an address, which proxies take up to 8 KB, and the server up to 16 KB, headers included."""

ENDED_RUN_STATES = frozenset({"completed", "failed", "stopped"})
"""A run in one of these stays in it, and has nothing more to tell."""


def without_ended(positions: Mapping[str, T], ended: Iterable[str]) -> dict[str, T]:
    """Return positions, less as many in runs that have ended as there are more than MOST_POSITIONS.

    Args:
        ended: streams of runs whose end was heard; the first go first.
    """
    surplus = max(0, len(positions) - MOST_POSITIONS)
    forgotten = set(islice((stream for stream in ended if stream in positions), surplus))
    return {stream: one for stream, one in positions.items() if stream not in forgotten}
