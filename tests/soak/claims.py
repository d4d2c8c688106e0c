"""What a soak claims of the servers and the database when it is over."""

import re
import time
from datetime import UTC, datetime
from statistics import median

from tests.scenarios.control import OF_EACH_CONNECTION

LEFT_SECONDS = 60.0
OTHER_SOCKETS = 28
"""A server's pool has up to 20 connections to the database; the others are the layer's to Redis, and its own pair."""
MB = 1_000_000
GROWTH_BYTES = 24 * MB
"""How much a server may grow while it is left alone. What a burst needs stays with the allocator; a leak of 4 KiB for
each of some ten thousand reconnects in ten minutes would be 40 MB."""
CONNECTION_BYTES = 64 * 1024
"""A connection takes about half of it; what it leaves to the allocator when it has gone is in it too."""
OUTAGE = re.compile(r"OperationalError|AdminShutdown|PoolTimeout|ConnectionError|InterfaceError")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|\{")
"""How a line begins that is no part of the error before it."""


def left_in(house, name):
    """Return what is left in a server when all clients have gone, compared with what there was before any came."""
    remains = house.parts[name].asking.ask("remains")
    remains["objects"] = {kind: count for kind, count in remains["objects"].items() if kind in OF_EACH_CONNECTION}
    wanted = {"connections": 0, "at the door": [0, 0, 0], "people and devices": [0, 0], "objects": {}}
    left = {what: remains[what] for what in (*wanted, "pages being read") if remains[what] != wanted.get(what, 0)}
    now, before = house.open_files(name), house.born[name]
    left |= {
        kind: f"{now[kind]}, {before[kind]} at the start"
        for kind in ("sockets at its port", "files", "pipes and such")
        if now[kind] > before[kind]
    }
    if now["other sockets"] > OTHER_SOCKETS:
        left["other sockets"] = now["other sockets"]
    return left


def wait_until_clean(house, names):
    """Return what is still left in servers after a while: name → what."""
    give_up = time.monotonic() + LEFT_SECONDS
    while True:
        left = {name: what for name in names if (what := left_in(house, name))}
        if not left or time.monotonic() > give_up:
            return left
        time.sleep(0.5)


def not_once(house, runs):
    """Return the runs of which a round was not aggregated exactly once, or has not exactly one model."""
    found = []
    for run in runs:
        rounds = [row["number"] for row in house.rounds(run) if row["state"] == "completed"]
        completed = [number for number, phase in house.aggregations(run) if phase == "completed" and number]
        versions = [model["version"] for model in house.models(run)]
        if not completed == rounds == list(range(1, house.run(run)["rounds"] + 1)) or versions != [0, *rounds]:
            found.append(f"run {run}: rounds {rounds}, aggregations completed {completed}, models {versions}")
    return found


def growth(samples, since):
    """Return by how many bytes a server grew from a time on, and how many would be too many.

    It is the middle of the last fifth less that of the first. Who came meanwhile, since another server was ended, may
    have its part of it, also when it has gone again.

    Args:
        samples: (when, bytes, connections).
    """
    seen = [(size, count) for at, size, count in samples if at >= since]
    if len(seen) < 5:
        return None
    fifth = len(seen) // 5
    grew = median(size for size, _ in seen[-fifth:]) - median(size for size, _ in seen[:fifth])
    more = max(count for _, count in seen) - median(count for _, count in seen[:fifth])
    return grew, GROWTH_BYTES + more * CONNECTION_BYTES


def bad_lines(paths, outages):
    """Return what logs hold that is no line of an outage; outages: from when to when each may show."""
    found = []
    for path in paths:
        text = path.read_text(errors="replace")
        if "Traceback" not in text and "Unhandled" not in text:
            continue
        found += [f"{path.name}: {error}" for error in errors_in(text, outages)]
    return found


def errors_in(text, outages):
    """Give the errors of a log that are none of an outage: by what they are, or by when they were."""
    lines = text.splitlines()
    number, said_at = 0, None
    while number < len(lines):
        if moment := MOMENT.match(lines[number]):
            said_at = datetime.fromisoformat(moment[0]).replace(tzinfo=UTC).timestamp()
        if "Traceback" not in lines[number] and "Unhandled" not in lines[number]:
            number += 1
            continue
        begin, number = number, number + 1
        # It goes on to the next line that is a record of its own; causes have a traceback each, and belong to it.
        while number < len(lines) and not RECORD.match(lines[number]):
            number += 1
        block = "\n".join(lines[max(0, begin - 1) : number])
        is_then = said_at is None or any(begin <= said_at + 1 and said_at <= end for begin, end in outages)
        if not is_then or not OUTAGE.search(block):
            yield block
