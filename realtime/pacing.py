"""Holds ticks back so that each key has at most one every QFLARE_TICK_SECONDS, and the newest always goes out."""

import asyncio
import time
from collections.abc import Callable

from django.conf import settings

from fl.signals import Ticked

IDLE_SECONDS = 60.0
SWEEP_AT = 1000
SWEEP_SECONDS = 10.0


class _Key:
    __slots__ = ("number", "pending", "sent_at", "timer")

    def __init__(self) -> None:
        self.sent_at = float("-inf")
        self.number = 0
        self.pending: Ticked | None = None
        self.timer: asyncio.TimerHandle | None = None


class Pacer:
    """Decides when a tick goes out, and numbers those that do.

    Numbers rise for each key, also when the next comes from another process: they are milliseconds of the clock, pushed
    up by one where the clock stands still or steps back.
    """

    def __init__(
        self,
        send: Callable[[Ticked, int], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        gather_seconds: float = 0.0,
    ) -> None:
        """Make a pacer.

        Args:
            gather_seconds: how long the first tick after a silence waits for others that come at about the same time.
        """
        self._send = send
        self._gather_seconds = gather_seconds
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._sweep_at = float("-inf")

    def offer(self, tick: Ticked, loop: asyncio.AbstractEventLoop | None) -> None:
        """Send a tick now, or keep it until its key may speak again; without a loop to wait on, it is dropped."""
        if len(self._keys) >= SWEEP_AT and self._clock() >= self._sweep_at:
            self._sweep()
        key = self._keys.setdefault(tick.key, _Key())
        wait = key.sent_at + settings.QFLARE_TICK_SECONDS - self._clock()
        if loop is not None:
            wait = max(wait, self._gather_seconds)
        if wait <= 0 and key.timer is None:
            self._let_go(key, tick)
            return
        key.pending = tick
        if key.timer is None and loop is not None:
            key.timer = loop.call_later(wait, self._flush, key)

    def _flush(self, key: _Key) -> None:
        key.timer = None
        if key.pending is not None:
            self._let_go(key, key.pending)

    def _let_go(self, key: _Key, tick: Ticked) -> None:
        key.pending = None
        key.sent_at = self._clock()
        key.number = max(key.number + 1, int(tick.timestamp.timestamp() * 1000))
        self._send(tick, key.number)

    def _sweep(self) -> None:
        # Looking through all keys again for each tick would take most of the time where there are many.
        self._sweep_at = self._clock() + SWEEP_SECONDS
        idle = self._clock() - IDLE_SECONDS
        self._keys = {name: key for name, key in self._keys.items() if key.timer is not None or key.sent_at > idle}
