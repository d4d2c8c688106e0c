"""Gathers what the devices of a round tell of their work, so that it goes out as one frame for all of them."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from edge.protocol.server import DeviceTick, TrainingProgress
from fl.signals import AtWork

RECENT_SECONDS = 2.0
"""For so long a device is told again with others: a frame that replaces one in a queue loses nobody's newest."""
GATHER_SECONDS = 0.025
"""The devices of a round begin together: the first waits so long for the others, since trainings may be short."""
DEVICES_AT_ONCE = 200
"""So many fit into one frame; a larger cohort takes several."""
FORGET_SECONDS = 60.0
SWEEP_AT = 100


@dataclass
class _Round:
    run_id: int
    number: int
    heard_at: float = 0.0
    newest: dict[int, tuple[float, DeviceTick]] = field(default_factory=dict)
    """By assignment: when it was heard, and what."""


class Gathering:
    """The newest of each device at work, by round.

    Another process has other devices of the same round, so each has keys of its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._origin = secrets.token_hex(3)
        self._rounds: dict[str, _Round] = {}

    def __len__(self) -> int:
        return len(self._rounds)

    def add(self, work: AtWork) -> str:
        """Take what a device tells, and return the key under which its round is told."""
        now = self._clock()
        if len(self._rounds) >= SWEEP_AT:
            self._rounds = {key: one for key, one in self._rounds.items() if now - one.heard_at < FORGET_SECONDS}
        key = f"progress:{work.run_id}:{work.round}:{self._origin}"
        round_ = self._rounds.setdefault(key, _Round(work.run_id, work.round))
        round_.heard_at = now
        before = round_.newest.get(work.tick.assignment_id)
        # It rises also where the device came from another process, or the clock steps back.
        number = max(before[1].number + 1 if before else 0, int(work.timestamp.timestamp() * 1000))
        round_.newest[work.tick.assignment_id] = (now, msgspec.structs.replace(work.tick, number=number))
        return key

    def frames(self, key: str) -> list[tuple[str, TrainingProgress]]:
        """Return what is to be told of a round now: one payload, or several of a large cohort, each with its key."""
        round_ = self._rounds.get(key)
        if round_ is None:
            return []
        since = self._clock() - RECENT_SECONDS
        ticks = [tick for _, (heard_at, tick) in sorted(round_.newest.items()) if heard_at >= since]
        pieces = [ticks[first : first + DEVICES_AT_ONCE] for first in range(0, len(ticks), DEVICES_AT_ONCE)]
        return [
            (
                f"{key}:{number}" if number else key,
                TrainingProgress(run_id=round_.run_id, round=round_.number, phase="training", devices=piece),
            )
            for number, piece in enumerate(pieces)
        ]
