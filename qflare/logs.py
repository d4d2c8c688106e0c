"""What is said in the log, and how."""

import logging
import time

from redis.exceptions import RedisError

PROBES = frozenset({"/healthz", "/readyz"})
"""Their addresses; `realtime.probes` answers them, and cannot be imported where logging is set up."""


class WithoutTrace(logging.Filter):
    """Takes the stack trace from what a stranger can bring about as often as they like; the line says all there is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, without its trace."""
        record.exc_info = None
        return True


class WithoutProbes(logging.Filter):
    """Leaves out what Django says of answers to probes: whoever asks every few seconds knows, and need not be told."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass that is not about a probe."""
        return getattr(getattr(record, "request", None), "path_info", "") not in PROBES


class OncePerOutage(logging.Filter):
    """Lets one line of an outage of Redis pass, where channels_redis tells of it each second with a stack trace."""

    QUIET_SECONDS = 30.0
    """After so long without another one it is a new outage."""

    def __init__(self) -> None:
        super().__init__()
        self._at = -self.QUIET_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the first of many pass, without its trace, and everything that is not of an outage."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RedisError | OSError):
            return True
        before, self._at = self._at, time.monotonic()
        record.msg, record.args, record.exc_info = "Redis is away: %s: %s", (type(error).__name__, error), None
        return self._at - before >= self.QUIET_SECONDS
