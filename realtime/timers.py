"""What comes due for many connections, done together.

A thousand connections that each beat by a timer of their own wake the process a hundred times a second, and most of
what an idle connection costs is the waking. Here time is cut into turns; what comes due within one waits for its end.
"""

import asyncio
import math
from collections.abc import Callable


class SharedTimer:
    """Something that is to be called at the end of a turn."""

    __slots__ = ("_function", "_turn")

    def __init__(self, function: Callable[[], None], turn: "Turn") -> None:
        self._function: Callable[[], None] | None = function
        self._turn = turn
        turn[self] = None

    @property
    def is_over(self) -> bool:
        """It was called, or cancelled."""
        return self._function is None

    def cancel(self) -> None:
        """Do not call it any more, nor keep it until its time."""
        self._function = None
        self._turn.pop(self, None)

    def __call__(self) -> None:
        """Call it, unless it was cancelled."""
        function, self._function = self._function, None
        if function is not None:
            function()


Turn = dict[SharedTimer, None]
"""What is called at the end of a turn, in the order in which that was asked for."""


class SharedTimers:
    """The turns of one event loop."""

    def __init__(self, seconds: float) -> None:
        """Cut time into turns.

        Args:
            seconds: how long a turn is, and so by how much something may be late.
        """
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._turns: dict[int, Turn] = {}

    def call_later(self, seconds: float, function: Callable[[], None]) -> SharedTimer:
        """Call something after so many seconds, or up to a turn later; never sooner."""
        number = math.ceil((self._loop.time() + seconds) / self._seconds)
        turn = self._turns.get(number)
        if turn is None:
            turn = self._turns[number] = {}
            self._loop.call_at(number * self._seconds, self._end, number)
        return SharedTimer(function, turn)

    def _end(self, number: int) -> None:
        turn = self._turns.pop(number)
        for timer in turn:
            # Each as a call of its own, so that one that fails is reported by the loop and takes no other with it.
            self._loop.call_soon(timer)
        # Whoever still keeps one of them keeps the turn.
        turn.clear()
