"""What the server takes from one connection: how much at once, how fast, and how many mistakes."""

import math
from dataclasses import dataclass, field

from django.conf import settings

from edge.protocol import MAX_CLIENT_MESSAGE_BYTES
from edge.protocol.server import Limits
from realtime.groups import Kind

CHUNK_BYTES = 256 * 1024
"""Longest frame that the server makes; Daphne takes up to 1 MiB, outgoing ones included."""
CHUNK_EVENTS = 100
"""Of the log, in a page and in a frame: a page of large events, 10 KB each, takes 2 MB while it is read and sent."""
MAX_POSITIONS = 500
"""How many streams one message may name."""

REPLAYS_AT_ONCE = 4
"""How many replays may wait for one peer: each keeps its snapshot, of a megabyte where many devices are at work."""


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait for a connection before it is fed from the log instead."""

    frames: int = field(default_factory=lambda: settings.QFLARE_QUEUE_FRAMES)
    size: int = field(default_factory=lambda: settings.QFLARE_QUEUE_BYTES)


def limits_of(kind: Kind) -> Limits:
    """Return what is taken from connections of a type."""
    match kind:
        case Kind.CLIENTS:
            rate, seconds = settings.QFLARE_DEVICE_MESSAGES_PER_SECOND, 2.5
        case Kind.ADMIN:
            rate, seconds = settings.QFLARE_ADMIN_MESSAGES_PER_SECOND, 2.0
        case _:
            rate, seconds = settings.QFLARE_MESSAGES_PER_SECOND, 2.0
    # So many seconds' worth may come at once.
    return Limits(message_bytes=MAX_CLIENT_MESSAGE_BYTES, messages_per_second=rate, burst=math.ceil(seconds * rate))


class TokenBucket:
    """Lets `rate` messages a second pass, and up to `burst` at once."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one; return 0, or for how many seconds to wait when there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class ErrorBudget:
    """Says when a client has made too many mistakes within QFLARE_MISTAKES_WITHIN_SECONDS."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._at: list[float] = []  # an empty deque takes ten times as much, in every connection
        self._seconds = settings.QFLARE_MISTAKES_WITHIN_SECONDS

    def spend(self, now: float) -> bool:
        """Count one mistake; say whether it was one too many."""
        self._at = [*self._at, now][-self._most :]
        return len(self._at) == self._most and now - self._at[0] < self._seconds
