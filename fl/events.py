"""The log of what happened: `record` for what must never be lost, `tick` for what may be.

Events are recorded in the transaction that changes the state. The counter row of a stream is its lock, so the order of
`seq` is the order of commits and a rollback gives its numbers back. Since counters are held until the commit, they are
taken last and in sorted order: `transaction()` collects what is recorded within it and writes it at its end.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import connection as database_connection
from django.db import transaction as database

from edge.protocol.server import DeviceTick, Payload, encode_payload
from fl import histories
from fl.models import Event, Stream
from fl.signals import AtWork, Recorded, Ticked, device_at_work, event_recorded, ticked, work_available

SYSTEM = "system"
RUN = "run:"
"""How the streams of runs begin."""
PRUNED_AT_ONCE = 1000
PRUNED_IN_A_TURN = 100_000
"""So that a turn of pruning takes a second or so, whatever has piled up."""


class NotInTransaction(RuntimeError):
    """`record` was called outside `events.transaction()`: the event could survive a state that was rolled back."""


@dataclass(frozen=True)
class _Entry:
    stream: str
    payload: Payload
    timestamp: datetime


@dataclass
class _Pending(threading.local):
    """What this thread has recorded and not yet written."""

    depth: int = 0
    entries: list[_Entry] = field(default_factory=list)
    wakes: bool = False


_pending = _Pending()


@contextmanager
def transaction() -> Iterator[None]:
    """Open a transaction (or join the open one) that writes its events last, and announces them after commit.

    An inner one that raises takes what it recorded with it, as its savepoint takes its changes.
    """
    outermost = _pending.depth == 0
    if outermost:
        histories.look_once()
    mark, woke = len(_pending.entries), _pending.wakes
    with database.atomic():
        _pending.depth += 1
        try:
            yield
            if outermost:
                _write(_pending.entries, wakes=_pending.wakes)
        except BaseException:
            del _pending.entries[mark:]
            _pending.wakes = woke
            raise
        finally:
            # Before the commit: who hears of it finds no transaction open, and what it records has one of its own.
            _pending.depth -= 1
            if outermost:
                _pending.entries.clear()
                _pending.wakes = False


def record(stream: str, event: Payload, now: datetime) -> None:
    """Add a durable event to a stream of the transaction that is open.

    Raises:
        NotInTransaction: there is none.
    """
    if _pending.depth == 0:
        raise NotInTransaction(f"{event.event} for {stream} was recorded outside fl.events.transaction()")
    _pending.entries.append(_Entry(stream, event, now))


def tick(key: str, event: Payload, *, stream: str, now: datetime) -> None:
    """Tell, as best one can, a value that the next of the same `key` replaces; nothing is written."""
    data = encode_payload(event).decode()
    ticked.send_robust(None, tick=Ticked(key=key, stream=stream, event=event.event, data=data, timestamp=now))


def tick_device(tick: DeviceTick, *, run_id: int, round: int, now: datetime) -> None:
    """Tell, as best one can, how far a device is; listeners gather what the devices of a round say."""
    device_at_work.send_robust(None, work=AtWork(run_id=run_id, round=round, tick=tick, timestamp=now))


def wake_coordinators() -> None:
    """Tell this process's coordinators, after the commit of the open transaction, that there may be work."""
    if _pending.depth:
        _pending.wakes = True
    else:
        work_available.send_robust(None)


def open_stream(name: str, *, task: str = "", public: bool = False) -> None:
    """Make a stream, with the labels that decide who may see it, unless it is there."""
    Stream.objects.get_or_create(name=name, defaults={"task": task, "public": public})


def _write(entries: list[_Entry], *, wakes: bool) -> None:
    by_stream: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_stream[entry.stream].append(entry)
    recorded = [item for name in sorted(by_stream) for item in _number(name, by_stream[name])]
    if recorded:
        _append(recorded)
    for item in recorded:
        database.on_commit(partial(event_recorded.send_robust, None, recorded=item), robust=True)
    if wakes:
        database.on_commit(partial(work_available.send_robust, None), robust=True)


def _number(name: str, entries: list[_Entry]) -> list[Recorded]:
    """Take the next numbers of a stream for these entries, and keep it locked until the commit."""
    head, epoch, task, public, in_trash = _advance(name, len(entries))
    return [
        Recorded(
            stream=name,
            epoch=epoch,
            seq=seq,
            event=entry.payload.event,
            data=encode_payload(entry.payload).decode(),
            timestamp=entry.timestamp,
            task=task,
            public=bool(public),
            in_trash=bool(in_trash),
        )
        for seq, entry in enumerate(entries, start=head - len(entries) + 1)
    ]


# In SQL, since every device's every step comes through here, and the ORM takes longer to write it than the database to
# do it.
_APPEND = "INSERT INTO fl_event (stream_id, seq, event, data, timestamp) VALUES (%s, %s, %s, %s, %s)"


def _append(recorded: list[Recorded]) -> None:
    in_its_column = database_connection.ops.adapt_datetimefield_value
    rows = [(item.stream, item.seq, item.event, item.data, in_its_column(item.timestamp)) for item in recorded]
    with database_connection.cursor() as cursor:
        cursor.executemany(_APPEND, rows)


# One statement in SQL, since the ORM has no UPDATE … RETURNING and a large cohort writes to a stream a device. From
# here to the commit no other transaction numbers an event of the stream.
_ADVANCE = "UPDATE fl_stream SET head = head + %s WHERE name = %s RETURNING head, epoch, task, public, in_trash"


def _advance(name: str, count: int) -> tuple[int, str, str, bool, bool]:
    with database_connection.cursor() as cursor:
        cursor.execute(_ADVANCE, [count, name])
        row = cursor.fetchone()
        if row is None:
            open_stream(name)
            cursor.execute(_ADVANCE, [count, name])
            row = cursor.fetchone()
    head, epoch, task, public, in_trash = row
    return head, epoch, task, public, in_trash


def prune(*, now: datetime) -> int:
    """Delete events past their time, oldest first; return how many.

    An event stays as long as one can resume from it: while it is among the newest QFLARE_RESUME_EVENTS of its stream,
    or younger than QFLARE_RESUME_HOURS. It also stays for QFLARE_EVENT_DAYS, and for ever where it belongs to a run.
    What a stream still has is always its newest events, without a hole.
    """
    age = max(timedelta(hours=settings.QFLARE_RESUME_HOURS), timedelta(days=settings.QFLARE_EVENT_DAYS))
    grown = Stream.objects.filter(head__gt=settings.QFLARE_RESUME_EVENTS).exclude(name__startswith=RUN)
    pruned = 0
    for name, head in grown.order_by("name").values_list("name", "head"):
        log = Event.objects.filter(stream=name)
        # By the first that is young enough, not by each one's age: a clock that stepped back must not make a hole.
        kept = log.filter(timestamp__gte=now - age).order_by("seq").values_list("seq", flat=True).first()
        last = min(head - settings.QFLARE_RESUME_EVENTS, (kept or head + 1) - 1)
        first = log.order_by("seq").values_list("seq", flat=True).first() or last + 1
        while first <= last and pruned < PRUNED_IN_A_TURN:
            first += PRUNED_AT_ONCE
            pruned += log.filter(seq__lt=min(first, last + 1)).delete()[0]
    return pruned
