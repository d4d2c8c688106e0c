"""A program beside the servers that records durable events: some each second, and many at once on SIGUSR1."""

import signal
import threading
import time

from django.db import DatabaseError, connection
from django.utils import timezone

from fl import events
from tests.scenarios.control import numbered

STREAM = "system"
IN_A_TRANSACTION = 100
EVENT_BYTES = 300


def main(rate, burst):
    """Record `rate` events a second, and `burst` more on each signal, until SIGTERM; try on without the database."""
    ended, asked = threading.Event(), threading.Semaphore(0)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGUSR1, lambda *_: asked.release())
    number, due = 0, time.monotonic()
    print("publishing", flush=True)
    while not ended.is_set():
        due = max(due + 1 / rate, time.monotonic() - 1)
        counts = [1]
        if asked.acquire(blocking=False):
            counts += [IN_A_TRANSACTION] * (burst // IN_A_TRANSACTION)
        for count in counts:
            number = _record(number, count)
        ended.wait(max(0, due - time.monotonic()))


def _record(number, count):
    try:
        with events.transaction():
            for one in range(number + 1, number + count + 1):
                events.record(STREAM, numbered(one, EVENT_BYTES), timezone.now())
    except DatabaseError as error:
        print(f"the database is away: {type(error).__name__}", flush=True)
        connection.close()
        time.sleep(0.5)
    # Whether it was committed, the database alone knows; each number is used once.
    return number + count
