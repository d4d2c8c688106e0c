"""The clock of a soak, what was done last, and what is known to be away; faults are told with all of it."""

import threading
import time

EXCUSED_SECONDS = 60.0
"""How long after a part was back its absence may still show: clients come back within 30 s, late news take longer."""

SERVICES = ("redis", "postgres")
"""What servers and coordinators may say that they miss."""


class Failure(Exception):
    """Something that the soak claims does not hold."""


class Watch:
    """When it is, what happened last, and who is away."""

    def __init__(self):
        self.began = time.monotonic()
        self.faults = []
        self.last = "nothing yet"
        self.outages = []
        """When a service was away, or its absence could still show: (begin, end), `time.time()`."""
        self._away = {}
        """Part → until when its absence is an excuse."""
        self._lock = threading.Lock()

    def begin(self):
        """Let the time begin."""
        self.began = time.monotonic()

    @property
    def now(self):
        """Seconds from the start."""
        return time.monotonic() - self.began

    def note(self, what):
        """Remember what was done last."""
        self.last = f"{what}, at {self.now:.1f} s"

    def away(self, part):
        with self._lock:
            self._away[part] = float("inf")
            if part in SERVICES:
                self.outages.append((time.time(), float("inf")))

    def back(self, part):
        with self._lock:
            self._away[part] = self.now + EXCUSED_SECONDS
            if part in SERVICES:
                self.outages.append((self.outages.pop()[0], time.time() + EXCUSED_SECONDS))

    def is_away(self, part):
        """Say whether a part is away right now."""
        return self._away.get(part) == float("inf")

    def excuses(self, *parts):
        """Say whether one of these parts is, or was just, away."""
        return any(self._away.get(part, -1.0) > self.now for part in parts)

    def fault(self, what):
        """Take note of what must not be."""
        with self._lock:
            self.faults.append(f"{self.now:.1f} s from the start (just before: {self.last}): {what}")

    def check(self):
        """Fail if something was found."""
        if self.faults:
            raise Failure(self.faults[0])
