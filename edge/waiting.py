"""How the main thread of a program waits: so that a signal ends it, whichever of its threads the signal was given."""

from collections.abc import Callable

SIGNAL_SECONDS = 1.0
"""A signal that another thread was given is answered so much later at most."""


def wait_until(is_over: Callable[[float], bool]) -> None:
    """Wait, and wake now and then: the system may give a signal to any thread, and only the main one answers it.

    Args:
        is_over: waits so many seconds, and says whether it is over.
    """
    while not is_over(SIGNAL_SECONDS):
        pass
