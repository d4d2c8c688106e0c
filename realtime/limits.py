"""What the server takes from one connection: how much at once, how fast, and how many mistakes."""

from collections import deque
from dataclasses import dataclass

from edge.protocol import MAX_CLIENT_MESSAGE_BYTES
from edge.protocol.server import Limits

BROWSER = Limits(message_bytes=MAX_CLIENT_MESSAGE_BYTES, messages_per_second=5, burst=10)
DEVICE = Limits(message_bytes=MAX_CLIENT_MESSAGE_BYTES, messages_per_second=20, burst=50)
ADMIN = Limits(message_bytes=MAX_CLIENT_MESSAGE_BYTES, messages_per_second=10, burst=20)

MAX_ERRORS = 10
ERROR_WINDOW_SECONDS = 60.0

CHUNK_BYTES = 256 * 1024
"""Longest frame that the server makes; Daphne takes up to 1 MiB, outgoing ones included."""
CHUNK_EVENTS = 200
MAX_POSITIONS = 500
"""How many streams one message may name."""


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait for a connection before it is fed from the log instead."""

    frames: int = 256
    size: int = 256 * 1024


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
    """Says when a client has made too many mistakes in a minute."""

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=MAX_ERRORS)

    def spend(self, now: float) -> bool:
        """Count one mistake; say whether it was one too many."""
        self._at.append(now)
        return len(self._at) == MAX_ERRORS and now - self._at[0] < ERROR_WINDOW_SECONDS
