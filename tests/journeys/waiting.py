"""Waits on conditions, with a give-up so generous that only what hangs meets it."""

import time

GIVE_UP_SECONDS = 120
LOOK_SECONDS = 0.1


def wait_for(what, condition, *, seconds=GIVE_UP_SECONDS, needs=()):
    """Return what `condition` gives as soon as it is true.

    Args:
        what: said when it does not come true.
        needs: programs without which it never will.
    """
    give_up_at = time.monotonic() + seconds
    while not (found := condition()):
        for program in needs:
            assert program.is_running, f"{program} ended while waiting for: {what}\n{program.last_words()}"
        said = "\n".join(f"{program}:\n{program.last_words()}" for program in needs)
        assert time.monotonic() < give_up_at, f"after {seconds} s, still not: {what}\n{said}"
        time.sleep(LOOK_SECONDS)
    return found
