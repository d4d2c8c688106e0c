"""What an event of the benchmark carries: its number, and when it was published.

`time.monotonic_ns` is one clock for all processes of a Linux machine, so a receiver in another process can say how old
an event is.
"""

import time

MARK = b"@@"
NUMBER_DIGITS = 8
MOMENT_DIGITS = 19
MARK_BYTES = len(MARK) + NUMBER_DIGITS + MOMENT_DIGITS
EVENT_BYTES = 300
"""Size of an event's text frame, header not counted."""


def mark(number: int) -> str:
    """Return the text that marks an event as published now."""
    return f"{MARK.decode()}{number:0{NUMBER_DIGITS}d}{time.monotonic_ns():0{MOMENT_DIGITS}d}"
