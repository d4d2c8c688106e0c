"""What tests of publishing let happen in a server: transactions that fail, views and commands that record, repairs."""

import random
import threading
from collections import Counter
from contextvars import ContextVar

from django.db import transaction
from django.utils import timezone

from fl import events
from realtime.connection import Connection
from realtime.hub import Hub
from realtime.messages import Logged
from tests.scenarios.control import command, numbered, on_loop

_log_reads, _handed_out = Counter(), Counter()
_brought_by = ContextVar("who brought what the hub hands out", default="layer")


def _count_calls(owner, name):
    original = getattr(owner, name)

    async def counted(*arguments):
        _log_reads[name] += 1
        _brought_by.set("log")  # each reads in a task of its own
        return await original(*arguments)

    setattr(owner, name, counted)


_count_calls(Hub, "_repair")
_count_calls(Connection, "_catch_up")
_hand_out = Hub._hand_out


async def _note_and_hand_out(hub, events):
    _handed_out[_brought_by.get()] += sum(isinstance(event, Logged) for _, event in events)
    await _hand_out(hub, events)


Hub._hand_out = _note_and_hand_out


@command("log_reads")
def log_reads():
    """Return how often events were taken from the log: those that the layer did not bring, and those that waited."""
    return dict(_log_reads)


@command("handed_out")
def handed_out():
    """Return how many events the hub has handed out that the layer brought, and how many out of the log."""
    return dict(_handed_out)


class Undone(Exception):
    """A transaction is to be rolled back."""


@command("record_at_random")
def record_at_random(seed, stream="system", tries=50, failing=0.2):
    """Record in so many transactions, of which some are rolled back; return the titles of those that were not."""
    chance = random.Random(seed)
    kept = []
    for number in range(tries):
        titles = [f"{seed}.{number}.{part}" for part in range(chance.randint(1, 3))]
        fails = chance.random() < failing
        try:
            with events.transaction():
                for title in titles:
                    events.record(stream, numbered(title), timezone.now())
                if fails:
                    raise Undone
        except Undone:
            continue
        kept += titles
    return kept


@command("record_and_fail")
def record_and_fail(title):
    """Record in a transaction that is rolled back from outside, after all was written and before it was committed."""
    try:
        with transaction.atomic():
            with events.transaction():
                events.record("system", numbered(title), timezone.now())
            raise Undone
    except Undone:
        return


@command("record_nested")
def record_nested(outer, undone, inner):
    """Record in transactions within a transaction, of which one fails."""
    with transaction.atomic(), events.transaction():
        events.record("system", numbered(outer), timezone.now())
        try:
            with events.transaction():
                events.record("system", numbered(undone), timezone.now())
                raise Undone
        except Undone:
            pass
        with events.transaction():
            events.record("system", numbered(inner), timezone.now())


@command("record_beside_a_handler_that_raises")
def record_beside_a_handler_that_raises(title, first):
    """Record where somebody else has asked to be called after the commit too, and fails: before us or after us."""

    def fail():
        raise Undone

    try:
        with transaction.atomic():
            if first:
                transaction.on_commit(fail)
            with events.transaction():
                events.record("system", numbered(title), timezone.now())
            if not first:
                transaction.on_commit(fail)
    except Undone:
        return "raised"
    return "passed over"


@command("record_in_plain_thread")
def record_in_plain_thread(title):
    """Record in a thread of which no framework knows, as one that trains."""
    thread = threading.Thread(target=record_one, args=(title,))
    thread.start()
    thread.join()


def record_one(title):
    """Record one event in a transaction of its own."""
    with events.transaction():
        events.record("system", numbered(title), timezone.now())


@command("has_sent")
def has_sent():
    """Say whether all that was handed to the layer so far has been sent."""
    from realtime import publishing

    def look():
        road = publishing._road
        return not (road._handed_over or road._waiting) and (road._task is None or road._task.done())

    return on_loop(look)
