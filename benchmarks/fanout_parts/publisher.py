"""Publishes events inside a server's process, on command: in a thread of its own, as a view or a coordinator would.

Commands are lines of JSON on standard input, answers lines of JSON on standard output:

pace       `count` events, `rate` a second
saturate   for `seconds`, with at most `window` events that not every subscriber has; each token means that one is done
burst      `count` events at once

Every command names the `mode` (which way of publishing) and the number of the `first` event.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Publish = Callable[[int, int], None]
"""Publishes as many events as the second number says, the first of which has the first number."""

STALLED_SECONDS = 30.0
"""Without a token for so long, events are lost and the loop would wait for ever."""


class Publisher(threading.Thread):
    """Takes commands until its input ends, and ends its process then."""

    def __init__(self, modes: dict[str, Publish], tokens: int) -> None:
        """Make a publisher.

        Args:
            tokens: descriptor of a pipe that brings a byte for each event that every subscriber has.
        """
        threading.Thread.__init__(self, name="publisher", daemon=True)
        self._modes = modes
        self._tokens = tokens

    def run(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(self, command.pop("do"))(**command)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        # Whoever commanded has gone, perhaps without a word: the server goes too.
        os.kill(os.getpid(), signal.SIGTERM)

    def pace(self, mode: str, first: int, count: int, rate: float) -> dict[str, Any]:
        """Publish at a fixed rate, whatever becomes of the events.

        Returns:
            How late the latest began, and of each how long it took until this thread could go on.
        """
        publish, begin, late = self._modes[mode], time.monotonic(), 0.0
        making = []
        for index in range(count):
            wait = begin + index / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            late = max(late, -wait)
            begun = time.monotonic()
            publish(first + index, 1)
            making.append((time.monotonic() - begun) * 1000)
        return {"published": count, "late_ms": late * 1000, "making_ms": making}

    def saturate(self, mode: str, first: int, seconds: float, window: int) -> dict[str, Any]:
        """Publish as fast as all subscribers together take the events."""
        publish, published, done = self._modes[mode], 0, 0
        self._take_tokens(0.0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while published - done < window:
                publish(first + published, 1)
                published += 1
            taken = self._take_tokens(STALLED_SECONDS)
            if not taken:
                return {"published": published, "stalled": True}
            done += taken
        while done < published and (taken := self._take_tokens(STALLED_SECONDS)):
            done += taken
        return {"published": published, "stalled": done < published}

    def burst(self, mode: str, first: int, count: int) -> dict[str, Any]:
        """Publish all at once."""
        self._modes[mode](first, count)
        return {"published": count}

    def _take_tokens(self, timeout: float) -> int:
        if not select.select([self._tokens], [], [], timeout)[0]:
            return 0
        return len(os.read(self._tokens, 65536))
