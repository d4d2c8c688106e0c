"""The hub and what leads to it: events of any thread reach every member once, in order, whatever the layer loses."""

import asyncio
import json
import threading

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.db import transaction
from django.utils import timezone

from fl import events
from fl.models import Event, Stream
from realtime.database import THREADS, query
from realtime.hub import RECIPIENTS_AT_ONCE, Hub
from realtime.process import running_process, this_process
from tests.realtime.acts import make_stream, note, record, record_many, record_now, tick_now
from tests.realtime.sockets import Closed, Socket, eventually
from tests.realtime.turns import Turns


@pytest.fixture
def public(settings):
    """Dashboards are open to everybody."""
    settings.QFLARE_PUBLIC_DASHBOARD = True


@pytest.fixture
def without_polls(settings):
    """Nothing is found by looking into the log by the clock."""
    settings.QFLARE_POLL_SECONDS = 3600


async def dashboard(query=""):
    socket = await Socket(f"/ws/dashboard{query}").connect()
    await socket.opened()
    return socket


async def titles(socket, number):
    """Return the titles and positions of so many durable events."""
    found = []
    while len(found) < number:
        frame = await socket.frame()
        if "seq" in frame:
            found.append((frame["seq"], frame["data"]["title"]))
    return found


pytestmark = pytest.mark.usefixtures("public")


async def test_an_event_reaches_every_dashboard_once_with_its_position(loop, without_polls):
    sockets = [await dashboard() for _ in range(3)]

    await record("system", note("hello"))

    for socket in sockets:
        frame = await socket.until("error_notification")
        assert (frame["stream"], frame["seq"], frame["data"]["title"]) == ("system", 1, "hello")
        assert frame["timestamp"].endswith("Z")
        assert socket.waiting == 0


async def test_all_get_the_same_text_and_the_log_gives_it_letter_for_letter(loop, without_polls):
    one, other = await dashboard(), await dashboard()
    await record("system", note("ä “quote”"))

    text = await one.text()

    assert await other.text() == text
    process = this_process()
    epoch = await query(lambda: Stream.objects.get(pk="system").epoch)
    (entry,) = await process.hub.log.after("system", epoch, 0)
    assert entry.frame.text == text


async def test_a_frame_sent_to_a_group_from_anywhere_reaches_its_members(loop, without_polls):
    watching, other = await dashboard(), await Socket("/ws").connect()
    await other.opened()

    await get_channel_layer().group_send("dashboard", {"type": "qflare.event", "frame": '{"event":"x","data":{}}'})

    assert await watching.frame() == {"event": "x", "data": {}}
    assert other.waiting == 0


async def test_a_plain_consumer_that_joins_the_group_gets_the_frames_too(loop):
    got = asyncio.Queue()

    class Plain(AsyncWebsocketConsumer):
        groups = ["dashboard"]

        async def qflare_event(self, message):
            await got.put(message["frame"])

    incoming, accepted = asyncio.Queue(), asyncio.Event()

    async def send(message):
        accepted.set()

    task = asyncio.create_task(Plain.as_asgi()({"type": "websocket", "headers": []}, incoming.get, send))
    await incoming.put({"type": "websocket.connect"})
    await accepted.wait()
    await record("system", note("plain"))

    assert json.loads(await asyncio.wait_for(got.get(), 30))["data"]["title"] == "plain"
    await incoming.put({"type": "websocket.disconnect", "code": 1000})
    await task


async def test_events_arrive_from_threads_coroutines_and_shells(loop, without_polls):
    socket = await dashboard()

    threading.Thread(target=record_now, args=("system", note("thread"))).start()
    first = await titles(socket, 1)
    await asyncio.to_thread(lambda: async_to_sync(record)("system", note("another loop")))
    await record("system", note("view"))

    assert [*first, *await titles(socket, 2)] == [(1, "thread"), (2, "another loop"), (3, "view")]


async def test_what_is_rolled_back_is_never_told(loop, without_polls):
    socket = await dashboard()

    def fail():
        with events.transaction():
            events.record("system", note("never"), timezone.now())
            raise LookupError

    with pytest.raises(LookupError):
        await asyncio.to_thread(fail)
    await record("system", note("after"))

    assert await titles(socket, 1) == [(1, "after")]


async def test_a_listener_that_fails_after_the_commit_does_not_silence_the_event(loop, without_polls):
    socket = await dashboard()

    def commit():
        with events.transaction():
            transaction.on_commit(lambda: 1 / 0, robust=True)
            events.record("system", note("still told"), timezone.now())

    await asyncio.to_thread(commit)

    assert await titles(socket, 1) == [(1, "still told")]


async def test_a_burst_larger_than_any_queue_arrives_whole_and_in_order(loop, without_polls):
    sockets = [await dashboard() for _ in range(5)]

    await record_many("system", 3000)

    for socket in sockets:
        assert await titles(socket, 3000) == [(n, str(n)) for n in range(1, 3001)]


async def test_what_the_layer_loses_is_read_from_the_log_when_the_next_event_shows_the_gap(loop, without_polls):
    socket = await dashboard()
    await record("system", note("1"))
    assert await titles(socket, 1) == [(1, "1")]
    layer = get_channel_layer()
    groups, layer.groups = layer.groups, {}
    await record("system", note("2"), note("3"))
    await asyncio.sleep(0.05)
    layer.groups = groups

    await record("system", note("4"))

    assert await titles(socket, 3) == [(2, "2"), (3, "3"), (4, "4")]


async def test_what_the_layer_loses_comes_by_the_clock_even_when_nothing_follows(loop, settings):
    settings.QFLARE_POLL_SECONDS = 0.1
    socket = await dashboard()
    get_channel_layer().groups = {}

    await record("system", note("lost"))

    assert await titles(socket, 1) == [(1, "lost")]


async def test_a_hub_that_the_layer_has_forgotten_joins_again(loop, without_polls):
    socket = await dashboard()
    get_channel_layer().groups = {}

    await this_process().hub.rejoin()
    await record("system", note("heard"))

    assert await titles(socket, 1) == [(1, "heard")]


@pytest.mark.parametrize("work", ["rejoin", "begin_anew"])
async def test_who_comes_while_groups_are_joined_again_does_not_break_that_off(loop, without_polls, work):
    socket = await dashboard()
    hub = this_process().hub

    async with hub._channels["dashboard"]._turn:
        joining = asyncio.create_task(getattr(hub, work)())
        await asyncio.sleep(0)
        await (await Socket("/ws").connect()).opened()  # the first of its kind here
    await joining
    await eventually(lambda: "dashboard" in get_channel_layer().groups)
    await record("system", note("heard"))

    assert await titles(socket, 1) == [(1, "heard")]


async def test_an_old_event_and_one_twice_are_dropped(loop, without_polls):
    socket = await dashboard()
    await record("system", note("1"), note("2"))
    assert await titles(socket, 2) == [(1, "1"), (2, "2")]
    stream = await query(lambda: Stream.objects.get(pk="system"))
    again = {"type": "qflare.event", "stream": "system", "epoch": stream.epoch, "seq": 1, "frame": "{}"}

    await get_channel_layer().group_send("dashboard", again)
    await record("system", note("3"))

    assert await titles(socket, 1) == [(3, "3")]
    assert socket.waiting == 0


async def test_a_message_that_nobody_understands_does_not_end_the_channel(loop, without_polls, caplog):
    socket = await dashboard()

    await get_channel_layer().group_send("dashboard", {"type": "qflare.event", "stream": "system", "seq": 1})
    await get_channel_layer().group_send("dashboard", {"type": "something.else"})
    await record("system", note("alive"))

    assert await titles(socket, 1) == [(1, "alive")]
    assert "could not be handled" in caplog.text
    assert "unknown type" in caplog.text


async def test_while_clients_connect_events_are_published_and_at_the_seam_nothing_is_missing_or_double(loop):
    await make_stream("system")
    await record_many("system", 100)
    done = asyncio.Event()

    async def publish():
        for n in range(101, 401):
            await record("system", note(str(n)))
        done.set()

    publishing = asyncio.create_task(publish())
    sockets, starts = [], []
    while not done.is_set() and len(sockets) < 40:
        socket = await Socket("/ws/dashboard").connect()
        recent = (await socket.until("recent_events", more=False))["data"]
        starts.append(recent["to"])
        sockets.append(socket)
    await publishing

    for socket, start in zip(sockets, starts, strict=True):
        expected = [(n, str(n)) for n in range(start + 1, 401)]
        assert await titles(socket, len(expected)) == expected


async def test_a_new_run_is_followed_unasked_from_its_first_event(loop, without_polls):
    socket = await dashboard()
    await make_stream("run:7", task="linear")

    await record("run:7", note("first"))

    frame = await socket.until("error_notification")
    assert (frame["stream"], frame["seq"]) == ("run:7", 1)


async def test_another_history_of_a_stream_ends_the_connections_that_follow_the_old_one(loop, without_polls):
    await make_stream("system")
    socket = await dashboard()
    await query(lambda: Stream.objects.filter(pk="system").update(epoch="another"))

    await record("system", note("from another history"))

    code, frames = await socket.closed()
    assert code == 4010
    assert frames[-1]["event"] == "bye"


@pytest.mark.parametrize("kind", ["event", "tick", "plain"])
async def test_a_burst_to_a_few_gives_the_loop_its_turns_as_one_event_to_many_does(loop, without_polls, kind):
    await make_stream("system")
    epoch = await query(lambda: Stream.objects.get(pk="system").epoch)
    for _ in range(3):
        await dashboard()
    hub, places = this_process().hub, {"event": lambda n: {"seq": n}, "tick": lambda n: {"key": f"{n}"}}
    message = {"type": "qflare.event", "stream": "system", "epoch": epoch, "frame": "{}"}
    place = places.get(kind, lambda n: {})

    async with Turns() as turns:
        for n in range(1, 2 * RECIPIENTS_AT_ONCE + 1):
            await hub.receive([message | place(n)], group="dashboard")

    assert turns.number >= 6


async def test_messages_that_waited_at_the_same_time_are_handed_out_in_order_whatever_they_are(loop, without_polls):
    socket = await dashboard()
    await record_many("system", 3)
    await titles(socket, 3)
    hub, epoch = this_process().hub, await query(lambda: Stream.objects.get(pk="system").epoch)

    def message(number, **place):
        text = json.dumps({"event": "x", "data": {}, "number": number, **place})
        return {"type": "qflare.event", "stream": "system", "epoch": epoch, "frame": text, **place}

    broken = {"type": "qflare.event", "stream": "system", "seq": 5}
    plain = {"type": "qflare.event", "frame": json.dumps({"event": "x", "data": {}, "number": 3})}
    await hub.receive(
        [
            message(0, seq=4),
            broken,
            message(1, key="k"),
            message(2, seq=5),
            message(9, seq=3),
            plain,
            message(4, key="l"),
            message(5, seq=6),
        ],
        group="dashboard",
    )

    assert [(await socket.frame())["number"] for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert socket.waiting == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "qflare.close"},
        {"type": "qflare.close", "code": 42},
        {"type": "qflare.close", "code": 1006},
        {"type": "qflare.event"},
        {"type": "qflare.event", "frame": 42},
    ],
    ids=["no code", "no such code", "a code that cannot be sent", "no frame", "no text"],
)
async def test_what_waited_behind_a_message_that_cannot_be_handled_is_handed_out(loop, without_polls, caplog, broken):
    socket = await dashboard()
    plain = {"type": "qflare.event", "frame": json.dumps({"event": "x", "data": {}})}

    await this_process().hub.receive([broken, plain], group="dashboard")

    assert (await socket.frame())["event"] == "x"
    (told,) = [record for record in caplog.records if "could not be handled" in record.message]
    assert (told.levelname, "dashboard" in told.message) == ("ERROR", True)


async def test_a_tick_that_waited_behind_the_first_event_of_a_run_comes_after_it(loop, without_polls):
    socket = await dashboard()
    await make_stream("run:7", task="linear")
    epoch = await query(lambda: Stream.objects.get(pk="run:7").epoch)
    first, tick = (
        {
            "type": "qflare.event",
            "stream": "run:7",
            "epoch": epoch,
            "task": "linear",
            "frame": json.dumps({"event": "x", "data": {}, **place}),
            **place,
        }
        for place in ({"seq": 1}, {"key": "k"})
    )

    await this_process().hub.receive([first, tick], group="dashboard")

    assert [("seq" in frame, "key" in frame) for frame in (await socket.frame(), await socket.frame())] == [
        (True, False),
        (False, True),
    ]


async def test_a_connection_that_joins_while_a_query_is_slow_holds_up_nobody(loop, without_polls):
    socket = await dashboard()
    gate = threading.Event()
    slow = asyncio.create_task(query(gate.wait, 30))

    await record("system", note("in time"))

    assert await titles(socket, 1) == [(1, "in time")]
    assert not slow.done()
    gate.set()
    await slow


# ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ticks_carry_a_key_and_a_rising_number_and_the_last_is_the_newest(loop, without_polls):
    socket = await dashboard()
    for n in range(1, 51):
        await asyncio.to_thread(tick_now, "progress:1", n / 50)

    numbers = []
    while True:
        frame = await socket.until("training_progress")
        assert frame["key"] == "progress:1"
        assert "seq" not in frame
        numbers.append(frame["number"])
        if frame["data"]["progress"] == 1.0:
            break

    assert numbers == sorted(set(numbers))
    assert len(numbers) < 50


async def test_devices_and_the_public_hear_no_ticks(loop, without_polls):
    anybody, watching = await Socket("/ws").connect(), await dashboard()
    await anybody.opened()

    await asyncio.to_thread(tick_now, "progress:1")

    await watching.until("training_progress")
    assert anybody.waiting == 0


# ── members ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_process_is_one_member_of_a_group_however_many_connections_it_has(loop):
    sockets = [await dashboard() for _ in range(5)]

    assert len(get_channel_layer().groups["dashboard"]) == 1
    for socket in sockets:
        await socket.leave()
    assert "dashboard" not in get_channel_layer().groups


async def test_after_the_last_has_left_the_next_finds_everything_as_it_is(loop, without_polls):
    first = await dashboard()
    await first.leave()
    await record("system", note("1"), note("2"))

    second = await Socket("/ws/dashboard").connect()
    recent = (await second.until("recent_events"))["data"]
    await record("system", note("3"))

    assert (recent["since"], recent["to"], recent["recovered"]) == (0, 2, False)
    assert await titles(second, 1) == [(3, "3")]


async def test_a_consumer_that_is_cancelled_leaves_no_trace(loop):
    socket = await dashboard()

    socket.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await socket.task
    assert this_process().hub.connections() == []
    socket.task = None


async def test_when_the_server_restarts_everybody_is_told_and_when_to_come_back(loop):
    sockets = [await dashboard() for _ in range(5)]

    await this_process().close_all()

    waits = set()
    for socket in sockets:
        code, frames = await socket.closed()
        assert code == 4001
        assert frames[-1]["event"] == "bye"
        waits.add(frames[-1]["data"]["retry_after_ms"])
    assert len(waits) > 1
    code, frames = await (await Socket("/ws/dashboard").connect()).closed()
    assert (code, frames[-1]["event"]) == (4001, "bye")
    assert frames[-1]["data"]["retry_after_ms"] >= 500


async def test_when_the_server_restarts_those_who_are_still_opening_are_told_too(loop):
    device = await Socket("/ws/clients").connect()
    gate = threading.Event()
    busy = [asyncio.create_task(query(gate.wait, 30)) for _ in range(THREADS)]
    page = await Socket("/ws/dashboard").connect()
    await eventually(lambda: len(this_process().door) == 2)

    await this_process().close_all()

    for socket in (device, page):
        code, frames = await socket.closed()
        assert (code, [frame["event"] for frame in frames]) == (4001, ["bye"])
        assert frames[0]["data"]["retry_after_ms"] >= 500
    gate.set()
    await asyncio.gather(*busy)


async def test_a_process_ends_in_order_though_its_last_words_cannot_be_written(loop, monkeypatch, caplog):
    from realtime import process, statistics

    def away(*_):
        raise LookupError("the database is away")

    await dashboard()
    monkeypatch.setattr(statistics, "forget", away)
    ending = this_process()
    await ending.close_all()

    await ending.stop()

    assert process.running_process() is None
    assert "last words" in caplog.text


async def test_a_process_ends_though_some_work_took_the_end_for_an_error(loop, monkeypatch, settings, caplog):
    """As a library may that is cancelled at a bad moment: the clock would bring the work round for ever."""
    is_working = asyncio.Event()

    async def poll(hub):
        if is_working.is_set():
            return
        is_working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("the answer broke off") from None

    settings.QFLARE_POLL_SECONDS = 0.05
    monkeypatch.setattr(Hub, "poll", poll)
    await dashboard()
    await is_working.wait()
    ending = this_process()
    await ending.close_all()

    await asyncio.wait_for(ending.stop(), 30)

    assert "poll failed" in caplog.text
    assert running_process() is None


async def test_a_process_takes_no_more_connections_than_it_may(loop, settings):
    settings.QFLARE_MAX_CONNECTIONS = 1
    await dashboard()

    refused = await Socket("/ws/dashboard").connect()

    code, frames = await refused.closed()
    assert code == 4013
    assert frames[-1]["data"]["code"] == 4013


# ── readers that are slow ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reader_that_pauses_loses_nothing_durable_and_keeps_the_newest_tick(loop, without_polls):
    slow, quick = await dashboard(), await dashboard()
    slow.takes.clear()
    await record_many("system", 1000)
    for n in range(5):
        await asyncio.to_thread(tick_now, "progress:1", n / 5)
    assert len(await titles(quick, 1000)) == 1000
    await eventually(lambda: any(one.is_behind for one in this_process().hub.connections()))

    slow.takes.set()

    assert await titles(slow, 1000) == [(n, str(n)) for n in range(1, 1001)]
    await eventually(lambda: not any(one.is_behind for one in this_process().hub.connections()))
    await record("system", note("live again"))
    assert await titles(slow, 1) == [(1001, "live again")]


async def test_what_waits_for_a_reader_is_bounded(loop, without_polls):
    slow = await dashboard()
    slow.takes.clear()
    (connection,) = this_process().hub.connections()

    await record_many("system", 2000)
    await eventually(lambda: connection.is_behind)

    frames, size = connection.queued
    assert frames <= 256
    assert size <= 256 * 1024
    slow.takes.set()
    assert len(await titles(slow, 2000)) == 2000


async def test_a_peer_that_takes_nothing_is_ended_as_too_slow(loop, without_polls, settings):
    settings.QFLARE_STALL_SECONDS = 0.2
    slow, healthy = await dashboard(), await dashboard()
    slow.takes.clear()

    await record("system", note("1"))

    await eventually(slow.task.done)
    assert len(this_process().hub.connections()) == 1
    assert await titles(healthy, 1) == [(1, "1")]


async def test_nothing_is_sent_after_the_close(loop):
    socket = await dashboard()
    (connection,) = this_process().hub.connections()
    connection.close(4008)

    connection.say(note("too late"))
    await record("system", note("too late as well"))

    with pytest.raises(Closed):
        assert (await socket.frame())["event"] == "bye"
        await socket.frame()


async def test_what_the_log_no_longer_has_is_said_and_not_passed_over(loop, settings):
    settings.QFLARE_POLL_SECONDS = 0.1
    await record("system", note("kept"))
    socket = await dashboard()
    get_channel_layer().groups = {}

    def record_and_prune():
        with transaction.atomic():
            record_now("system", note("gone"))
            Event.objects.filter(seq=2).delete()

    await asyncio.to_thread(record_and_prune)

    code, frames = await socket.closed()
    assert code == 4010
    assert frames[-1]["event"] == "bye"
