"""What tests of the sockets let happen: events and ticks, recorded as use cases do, from a thread or from the test."""

import asyncio
from itertools import count

from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from edge.protocol.server import ErrorNotification, FlStatusUpdate, TrainingProgress
from fl import events
from fl.events import open_stream

_numbers = count(1)


def note(title=""):
    """Return an error notification, which has the fewest fields."""
    return ErrorNotification(code="test", title=title or f"note {next(_numbers)}")


def record_now(stream, *payloads):
    """Record events in one transaction."""
    with events.transaction():
        for payload in payloads or (note(),):
            events.record(stream, payload, timezone.now())


async def record(stream, *payloads):
    """Record events in one transaction, in a thread, as a view does."""
    await asyncio.to_thread(record_now, stream, *payloads)


async def record_many(stream, number):
    """Record events titled 1, 2, 3 … in one transaction."""
    await record(stream, *[note(str(n)) for n in range(1, number + 1)])


def tick_now(key, progress=0.5, stream="system"):
    """Tell a tick."""
    payload = TrainingProgress(run_id=1, round=1, phase="training", assignment_id=1, progress=progress)
    events.tick(key, payload, stream=stream, now=timezone.now())


def status(run_id=1, state="running"):
    """Return the state of a run."""
    return FlStatusUpdate(
        run_id=run_id,
        run_name="a run",
        task="linear",
        strategy="fedavg",
        state=state,
        rounds=2,
        cohort_size=2,
        quorum=2,
    )


async def make_stream(name, **labels):
    """Make a stream."""
    await asyncio.to_thread(open_stream, name, **labels)


def cookie_of(user):
    """Sign a person in and return the cookie."""
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}"


def rename_table(old, new):
    """Let a table be missing, or be there again: what the database is asked for then fails."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")
