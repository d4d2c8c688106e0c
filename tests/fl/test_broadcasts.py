"""Other code speaks: events of each kind, from code of both sorts, and admins to everybody of some types."""

import asyncio
import gc

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from edge.protocol import server
from fl import broadcasts, signals
from fl.exceptions import Invalid, NotFound
from fl.models import Event, Stream
from tests.builders import NOW, at, fleet, participant, person, started_run, step

pytestmark = pytest.mark.django_db(transaction=True)


def newest(stream):
    """Return the newest event of a stream, decoded and checked against its struct."""
    row = Event.objects.filter(stream=stream).latest("seq")
    return server.decode_payload(row.event, row.data.encode())


# ── messages of people ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_broadcast_is_one_event_in_each_audiences_stream_with_who_sent_it():
    ada = person("ada", "admin")

    sent = broadcasts.broadcast(
        message="Maintenance at noon.",
        audiences=["general", "clients", "general"],
        level="warning",
        sender=ada,
        now=NOW,
        expires_at=at(60),
    )

    for stream in ("audience:clients", "audience:general"):
        assert newest(stream) == sent
        assert Stream.objects.get(pk=stream).head == 1
    assert (sent.sender, sent.audiences, sent.level) == ("ada", ["clients", "general"], "warning")
    assert not Stream.objects.filter(pk__in=["audience:dashboard", "audience:admin"]).exists()


@pytest.mark.parametrize(
    ("changes", "field", "fact"),
    [
        ({"message": "  "}, "message", "1 to 2,000"),
        ({"message": "m" * 2001}, "message", "1 to 2,000"),
        ({"audiences": []}, "audiences", "needs an audience"),
        ({"audiences": ["clients", "everybody"]}, "audiences", "everybody"),
    ],
)
def test_a_broadcast_that_cannot_be_is_refused(changes, field, fact):
    ada = person("ada", "admin")

    with pytest.raises(Invalid, match=fact) as refusal:
        broadcasts.broadcast(**{"message": "m", "audiences": ["general"], "sender": ada, "now": NOW} | changes)

    assert refusal.value.field == field
    assert not Event.objects.exists()


# ── the six kinds of event ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_state_of_a_run_with_what_one_adds():
    run = started_run()

    broadcasts.broadcast_fl_status_update({"reason": "warming up"}, run_id=run.pk)

    payload = newest(run.stream)
    assert (payload.reason, payload.state, payload.round, payload.run_name) == ("warming up", "running", 1, "a run")


def test_progress_of_a_round_goes_to_its_run():
    run = started_run()

    broadcasts.broadcast_training_progress(1, {"progress": 0.5, "loss": 0.25}, run_id=run.pk)

    payload = newest(run.stream)
    assert (payload.round, payload.phase, payload.progress, payload.loss) == (1, "training", 0.5, 0.25)


@pytest.mark.parametrize("naming", [{"device_id": 3}, {"device_name": "shed-1"}, {"assignment_id": 4}])
def test_progress_that_names_a_device_goes_to_people_alone(naming):
    run = started_run()
    head = Stream.objects.get(pk=run.stream).head

    broadcasts.broadcast_training_progress(1, {"progress": 0.5, **naming}, run_id=run.pk)

    assert newest("system").progress == 0.5
    assert Stream.objects.get(pk=run.stream).head == head


def test_a_phase_of_an_aggregation_goes_to_its_run():
    run = started_run()

    broadcasts.broadcast_model_aggregation(1, {"phase": "progress", "progress": 0.4}, run_id=run.pk)

    payload = newest(run.stream)
    assert (payload.round, payload.phase, payload.progress, payload.task) == (1, "progress", 0.4, "linear")


def test_the_state_of_a_device_with_what_one_adds():
    device = participant("shed-1").device

    broadcasts.broadcast_device_status(device.pk, {"activity": "charging"})

    payload = newest("system")
    assert (payload.device_id, payload.name, payload.activity) == (device.pk, "shed-1", "charging")


def test_an_error_goes_to_its_run_or_to_people():
    run = started_run()

    broadcasts.broadcast_error_notification("odd", {"title": "Odd", "run_id": run.pk})
    broadcasts.broadcast_error_notification("odd", {"title": "Odd device", "run_id": run.pk, "device_id": 3})
    broadcasts.broadcast_error_notification("odd", {"title": "Odd server"})

    assert newest(run.stream).title == "Odd"
    titles = [msgspec.json.decode(row.data)["title"] for row in Event.objects.filter(stream="system").order_by("seq")]
    assert titles[-2:] == ["Odd device", "Odd server"]


def test_the_newest_events_of_a_stream_are_sent_again_and_nothing_is_written():
    run = started_run()
    ticks = []

    def hear(tick, **_):
        ticks.append(tick)

    signals.ticked.connect(hear)
    before = Event.objects.count()

    broadcasts.broadcast_recent_events(run.stream, limit=2)

    signals.ticked.disconnect(hear)
    stream = Stream.objects.get(pk=run.stream)
    (tick,) = ticks
    payload = server.decode_payload(tick.event, tick.data)
    assert (tick.stream, payload.stream, payload.epoch) == (run.stream, run.stream, stream.epoch)
    assert [event.seq for event in payload.events] == [stream.head - 1, stream.head]
    assert (payload.since, payload.to) == (stream.head - 2, stream.head)
    assert bytes(payload.events[-1].data).decode() == Event.objects.get(stream=stream, seq=stream.head).data
    assert Event.objects.count() == before


CALLS = {
    "fl_status_update": lambda: broadcasts.broadcast_fl_status_update({}, run_id=99),
    "training_progress": lambda: broadcasts.broadcast_training_progress(1, {}, run_id=99),
    "model_aggregation": lambda: broadcasts.broadcast_model_aggregation(1, {}, run_id=99),
    "device_status": lambda: broadcasts.broadcast_device_status(99, {}),
    "error_notification": lambda: broadcasts.broadcast_error_notification("odd", {"title": "Odd", "run_id": 99}),
    "recent_events": lambda: broadcasts.broadcast_recent_events("run:99"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_what_is_not_there_is_not_found(call):
    with pytest.raises(NotFound):
        call()


def test_data_that_does_not_fit_is_refused_with_its_field():
    run = started_run()

    with pytest.raises(Invalid, match=r"training_progress: Expected `float \| null`, got `str` - at `\$.progress`"):
        broadcasts.broadcast_training_progress(1, {"progress": "half"}, run_id=run.pk)
    with pytest.raises(Invalid, match="model_aggregation: Invalid enum value 'begun'"):
        broadcasts.broadcast_model_aggregation(1, {"phase": "begun"}, run_id=run.pk)
    with pytest.raises(Invalid, match="error_notification: Object missing required field `title`"):
        broadcasts.broadcast_error_notification("odd", {})


# ── from asynchronous code ────────────────────────────────────────────────────────────────────────────────────────────


def in_a_thread(function, *arguments):
    """Call a function in a thread that leaves no connection behind."""

    def call():
        try:
            return function(*arguments)
        finally:
            connection.close()

    return sync_to_async(call, thread_sensitive=False)()


async def test_from_asynchronous_code_it_is_there_when_awaited():
    run = await in_a_thread(started_run)

    await broadcasts.broadcast_training_progress(1, {"progress": 0.5}, run_id=run.pk)

    assert (await in_a_thread(newest, run.stream)).progress == 0.5


async def test_from_asynchronous_code_it_goes_out_without_being_awaited():
    run = await in_a_thread(started_run)
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hear(recorded, **_):
        loop.call_soon_threadsafe(heard.set)

    signals.event_recorded.connect(hear)
    broadcasts.broadcast_training_progress(1, {"progress": 0.5}, run_id=run.pk)
    gc.collect()

    await asyncio.wait_for(heard.wait(), 60)
    signals.event_recorded.disconnect(hear)
    assert (await in_a_thread(newest, run.stream)).progress == 0.5


async def test_from_asynchronous_code_an_error_reaches_who_awaits():
    with pytest.raises(NotFound):
        await broadcasts.broadcast_device_status(99, {})


def test_a_round_tells_followers_nothing_of_its_devices():
    senders = fleet(2)
    run = started_run()
    step(run)
    for sender in senders:
        sender.send()
    step(run)

    followed = " ".join(Event.objects.filter(stream=run.stream).values_list("data", flat=True))

    for sender in senders:
        assert sender.device.name not in followed
    assert '"device_id":null' in followed
    assert '"device_id":1' not in followed
