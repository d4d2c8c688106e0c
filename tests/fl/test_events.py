"""The log of what happened: contiguous whatever rolls back, written last, told after the commit and not before."""

import math
import threading

import msgspec
import pytest
from django.db import connection
from django.db import transaction as database

from edge.protocol.server import ErrorNotification, TrainingProgress
from fl import events, signals
from fl.models import Event, Stream
from tests.builders import NOW, at

pytestmark = pytest.mark.django_db(transaction=True)


def notice(code, **facts):
    return ErrorNotification(code=code, title="a title", **facts)


def log():
    """Return what the log holds as "stream#seq code"."""
    rows = Event.objects.order_by("stream", "seq")
    return [f"{row.stream_id}#{row.seq} {msgspec.json.decode(row.data)['code']}" for row in rows]


@pytest.fixture
def listen():
    """Connect a function to a signal until the test ends."""
    connected = []

    def to(signal, function):
        signal.connect(function, weak=False)
        connected.append((signal, function))

    yield to
    for signal, function in connected:
        signal.disconnect(function)


@pytest.fixture
def heard(listen):
    """What was announced, as "stream#seq"."""
    told = []
    listen(signals.event_recorded, lambda recorded, **_: told.append(f"{recorded.stream}#{recorded.seq}"))
    return told


def record(stream, code):
    with events.transaction():
        events.record(stream, notice(code), NOW)


# ── recording ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_count_from_one_in_each_stream():
    record("a", "first")
    record("b", "first of b")
    record("a", "second")

    assert log() == ["a#1 first", "a#2 second", "b#1 first of b"]
    assert dict(Stream.objects.values_list("name", "head")) == {"a": 2, "b": 1}


def test_recording_outside_a_transaction_is_refused():
    with pytest.raises(events.NotInTransaction, match="error_notification for a"):
        events.record("a", notice("lost"), NOW)

    assert log() == []


def test_a_transaction_of_the_database_alone_is_not_enough():
    with pytest.raises(events.NotInTransaction), database.atomic():
        events.record("a", notice("lost"), NOW)


def test_nothing_is_written_before_the_transaction_ends():
    with events.transaction():
        events.record("a", notice("x"), NOW)
        assert log() == []

    assert log() == ["a#1 x"]


def test_a_rollback_takes_its_events_and_gives_their_numbers_back(heard):
    record("a", "kept")
    with pytest.raises(RuntimeError), events.transaction():
        events.record("a", notice("lost"), NOW)
        raise RuntimeError
    record("a", "next")

    assert log() == ["a#1 kept", "a#2 next"]
    assert heard == ["a#1", "a#2"]


def test_an_inner_rollback_takes_its_own_events_alone():
    with events.transaction():
        events.record("a", notice("before"), NOW)
        with pytest.raises(RuntimeError), events.transaction():
            events.record("a", notice("inner"), NOW)
            events.record("b", notice("inner"), NOW)
            raise RuntimeError
        events.record("a", notice("after"), NOW)

    assert log() == ["a#1 before", "a#2 after"]


def test_an_inner_transaction_that_ends_well_is_written_with_the_outer():
    with events.transaction():
        with events.transaction():
            events.record("a", notice("inner"), NOW)
        assert log() == []
        events.record("a", notice("outer"), NOW)

    assert log() == ["a#1 inner", "a#2 outer"]


def test_an_outer_rollback_takes_what_inner_transactions_recorded(heard):
    with pytest.raises(RuntimeError), events.transaction():
        with events.transaction():
            events.record("a", notice("inner"), NOW)
        raise RuntimeError

    assert log() == []
    assert heard == []


def test_streams_are_locked_in_sorted_order_whatever_order_they_are_named_in():
    with connection.execute_wrapper(locked := Locked()), events.transaction():
        for stream in ("run:2", "system", "device:9", "run:1", "device:10"):
            events.record(stream, notice("x"), NOW)

    assert locked.streams == sorted(locked.streams)
    assert set(locked.streams) == {"run:1", "run:2", "system", "device:9", "device:10"}


class Locked:
    """Notes the streams whose counter is taken, in order."""

    def __init__(self):
        self.streams = []

    def __call__(self, execute, sql, parameters, many, context):
        if sql.startswith("UPDATE") and "fl_stream" in sql and parameters[-1] not in self.streams[-1:]:
            self.streams.append(parameters[-1])
        return execute(sql, parameters, many, context)


def test_a_stream_keeps_its_epoch_and_its_labels():
    events.open_stream("run:5", task="linear", public=True)
    epoch = Stream.objects.get(pk="run:5").epoch
    record("run:5", "x")
    events.open_stream("run:5", task="other", public=False)

    stream = Stream.objects.get(pk="run:5")
    assert (stream.epoch, stream.task, stream.public, stream.head) == (epoch, "linear", True, 1)


def test_what_is_not_finite_is_null_in_the_log():
    with events.transaction():
        progress = TrainingProgress(run_id=1, round=1, phase="training", loss=math.inf, metrics={"loss": math.nan})
        events.record("a", progress, at(1.5))

    row = Event.objects.get()
    data = msgspec.json.decode(row.data)
    assert (data["loss"], data["metrics"]) == (None, {"loss": None})
    assert row.timestamp == at(1.5)


def test_threads_record_each_for_itself():
    refused = []

    def other():
        try:
            events.record("a", notice("lost"), NOW)
        except events.NotInTransaction as error:
            refused.append(error)

    with events.transaction():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert len(refused) == 1
    assert log() == []


# ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_are_announced_after_the_commit_and_not_before(heard):
    with events.transaction():
        events.record("b", notice("x"), NOW)
        events.record("a", notice("y"), NOW)
        events.record("b", notice("z"), NOW)
        assert heard == []

    assert heard == ["a#1", "b#1", "b#2"]


def test_an_announcement_says_all_that_the_frame_and_its_audience_need(listen):
    told = []
    listen(signals.event_recorded, lambda recorded, **_: told.append(recorded))
    events.open_stream("run:5", task="linear", public=True)

    record("run:5", "x")

    stream, row = Stream.objects.get(pk="run:5"), Event.objects.get()
    assert told == [
        signals.Recorded(
            stream="run:5",
            epoch=stream.epoch,
            seq=1,
            event="error_notification",
            data=row.data,
            timestamp=NOW,
            task="linear",
            public=True,
        )
    ]


def test_a_listener_that_raises_stops_neither_the_others_nor_the_work(listen):
    told = []
    listen(signals.event_recorded, lambda **_: 1 / 0)
    listen(signals.event_recorded, lambda recorded, **_: told.append(recorded.seq))

    record("a", "x")
    record("a", "y")

    assert told == [1, 2]
    assert log() == ["a#1 x", "a#2 y"]


def test_a_listener_may_record_in_a_transaction_of_its_own(listen, heard):
    def answer(recorded, **_):
        if recorded.stream == "a":
            record("b", "answer")

    listen(signals.event_recorded, answer)

    record("a", "question")

    assert log() == ["a#1 question", "b#1 answer"]
    assert heard == ["a#1", "b#1"]


def test_a_listener_outside_a_transaction_cannot_record(listen):
    refused = []

    def answer(**_):
        try:
            events.record("b", notice("lost"), NOW)
        except events.NotInTransaction as error:
            refused.append(error)

    listen(signals.event_recorded, answer)

    record("a", "question")

    assert len(refused) == 1
    assert log() == ["a#1 question"]


def test_coordinators_wake_once_after_the_commit(listen):
    woken = []
    listen(signals.work_available, lambda **_: woken.append(True))

    with events.transaction():
        events.wake_coordinators()
        with events.transaction():
            events.wake_coordinators()
        assert not woken

    assert woken == [True]


def test_a_rollback_wakes_nobody(listen):
    woken = []
    listen(signals.work_available, lambda **_: woken.append(True))

    with pytest.raises(RuntimeError), events.transaction():
        events.wake_coordinators()
        raise RuntimeError
    with events.transaction(), pytest.raises(RuntimeError), events.transaction():
        events.wake_coordinators()
        raise RuntimeError

    assert not woken


def test_outside_a_transaction_coordinators_wake_at_once(listen):
    woken = []
    listen(signals.work_available, lambda **_: woken.append(True))

    events.wake_coordinators()

    assert woken == [True]


def test_a_listener_that_wakes_coordinators_is_heard(listen):
    woken = []
    listen(signals.event_recorded, lambda **_: events.wake_coordinators())
    listen(signals.work_available, lambda **_: woken.append(True))

    record("a", "x")

    assert woken == [True]


def test_a_tick_is_told_at_once_and_writes_nothing(listen, django_assert_num_queries):
    ticks = []
    listen(signals.ticked, lambda tick, **_: ticks.append(tick))

    with django_assert_num_queries(0):
        events.tick("progress:1", notice("x"), stream="system", now=NOW)

    (tick,) = ticks
    assert (tick.key, tick.stream, tick.event, tick.timestamp) == ("progress:1", "system", "error_notification", NOW)
    assert Event.objects.count() == 0
