"""What a fleet tells: hundreds of devices say the same things, so people get sums, and of troubles one a second."""

import threading
import time
from collections import Counter
from dataclasses import replace

from edge.notes import Note, Tell

QUIET_SECONDS = 1.0


class Summary:
    """Takes the notes of all devices of a fleet and passes on what a person can read.

    Args:
        count: how many devices there are.
        details: pass on every note, with the device's name in it, instead.
    """

    def __init__(self, count: int, tell: Tell, *, details: bool = False) -> None:
        self._count = count
        self._tell = tell
        self._details = details
        self._lock = threading.Lock()
        self._connected: set[str] = set()
        self._round: tuple[object, object] | None = None
        self._updates: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}
        self._withheld: Counter[str] = Counter()

    def teller(self, name: str) -> Tell:
        """Return what the device of this name tells its notes to."""

        def tell(note: Note) -> None:
            self._take(name, note)

        return tell

    @property
    def connected(self) -> int:
        """How many devices are connected."""
        return len(self._connected)

    def _take(self, name: str, note: Note) -> None:
        with self._lock:
            sums = self._count_in(name, note)
            passed_on = [_signed(name, note)] if self._details else sums + self._troubles(name, note)
        for passed in passed_on:
            self._tell(passed)

    def _count_in(self, name: str, note: Note) -> list[Note]:
        if note.kind == "connected":
            self._connected.add(name)
        elif note.kind == "disconnected":
            self._connected.discard(name)
        elif note.kind == "update":
            return self._count_update(note)
        else:
            return []
        if len(self._connected) != self._count and not self._may_tell("fleet"):
            return []
        text = f"{len(self._connected)} of {self._count} devices are connected."
        return [Note("fleet", text, facts={"connected": len(self._connected), "devices": self._count})]

    def _count_update(self, note: Note) -> list[Note]:
        this_round = (note.facts.get("run"), note.facts.get("round"))
        notes: list[Note] = []
        if self._round is not None and this_round != self._round:
            run, number = self._round
            sums = ", ".join(f"{count} {state}" for state, count in sorted(self._updates.items()))
            notes = [Note("fleet", f"Round {number} of run {run}: {sums}.", facts=dict(self._updates))]
            self._updates.clear()
        self._round = this_round
        self._updates[str(note.facts.get("state"))] += 1
        return notes

    def _troubles(self, name: str, note: Note) -> list[Note]:
        if note.level == "info":
            return []
        if not self._may_tell(note.kind):
            self._withheld[note.kind] += 1
            return []
        own = _signed(name, note)
        more = self._withheld.pop(note.kind, 0)
        return [replace(own, text=f"{own.text} ({more} more like it before)") if more else own]

    def _may_tell(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._quiet_until.get(kind, 0.0):
            return False
        self._quiet_until[kind] = now + QUIET_SECONDS
        return True


def _signed(name: str, note: Note) -> Note:
    return replace(note, text=f"{name}: {note.text}", facts={**note.facts, "device_name": name})
