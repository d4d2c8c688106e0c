"""A process that records events, to be started several times at once: `python -m tests.fl.writers NAME COUNT STREAM…`.

It says "ready", waits for a line, writes, and prints what it committed as JSON lines: [stream, code]. Some of its
transactions fail at the end, and some lose an inner one.
"""

import json
import random
import sys

import django


class GivenUp(Exception):
    """A transaction that is rolled back on purpose."""


def main(name, count, streams):
    django.setup()
    from django.db import connection

    connection.ensure_connection()
    print("ready", flush=True)
    sys.stdin.readline()
    chance = random.Random(name)
    for number in range(count):
        for stream, code in write(f"{name}-{number}", streams, chance):
            print(json.dumps([stream, code]), flush=True)


def write(code, streams, chance):
    """Record one event in each stream, in the order given, and one more in some; return what stays."""
    from fl import events

    stays = []
    fails, loses, repeats = (chance.random() < share for share in (0.25, 0.25, 0.5))
    try:
        with events.transaction():
            for stream in streams:
                stays.append(recorded(stream, code))
            if loses:
                lose(streams, code)
            if repeats:
                stays.append(recorded(streams[0], f"{code}-again"))
            if fails:
                raise GivenUp
    except GivenUp:
        return []
    return stays


def lose(streams, code):
    """Record in an inner transaction that is rolled back."""
    from fl import events

    try:
        with events.transaction():
            for stream in streams:
                recorded(stream, f"{code}-lost")
            raise GivenUp
    except GivenUp:
        return


def recorded(stream, code):
    from django.utils import timezone

    from edge.protocol.server import ErrorNotification
    from fl import events

    events.record(stream, ErrorNotification(code=code, title="a title"), timezone.now())
    return stream, code


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
