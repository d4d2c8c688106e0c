"""When to try again: pure decisions, so that a thousand devices of a restarted server do not come back as one."""

from dataclasses import dataclass

from edge.protocol.close_codes import RESTARTS, CloseCode, is_terminal

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
STABLE_SECONDS = 10.0
"""A connection that lasted this long was a good one: the next failure counts as the first."""

CROWDED_SECONDS = 30.0
RESTART_SECONDS = (0.5, 10.0)

LOST = 1006
"""Close code of a connection that ended without saying so, or never began."""


@dataclass(frozen=True)
class Ending:
    """How a connection ended.

    Attributes:
        code: close code; 1006 if there was none.
        uptime: seconds from `welcome` to the end; 0 if there was no welcome.
        retry_after: seconds that the server asked to wait, if it did.
    """

    code: int = LOST
    reason: str = ""
    uptime: float = 0.0
    retry_after: float | None = None


def full_jitter(attempt: int, draw: float) -> float:
    """Return the seconds to wait before attempt `attempt` + 1: from 0 to 0.5 · 2^attempt, at most 30.

    Args:
        attempt: failures before this one, from 0.
        draw: a random number in [0, 1).
    """
    return draw * min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 16))


def reconnect_delay(attempt: int, ending: Ending, draw: float) -> float | None:
    """Return the seconds to wait before connecting again, or None: stay away.

    What the server asks for in its `bye` is the least; the jitter comes on top.
    """
    if is_terminal(ending.code):
        return None
    jitter = full_jitter(attempt, draw)
    if ending.code == CloseCode.TOO_MANY:
        return max(CROWDED_SECONDS, ending.retry_after or 0.0) + jitter
    if ending.retry_after is not None:
        return ending.retry_after + jitter
    if ending.code in RESTARTS:
        shortest, longest = RESTART_SECONDS
        return shortest + draw * (longest - shortest)
    return jitter


def next_attempt(attempt: int, ending: Ending) -> int:
    """Count failures in a row: the first after a connection of 10 s or more is 0 again."""
    return 0 if ending.uptime >= STABLE_SECONDS else attempt + 1
