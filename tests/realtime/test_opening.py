"""How a stream is taken up: decided purely, then read from the log and put into frames that are short enough."""

import asyncio
from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from edge.protocol.server import DeviceStatus, Position, Snapshot, decode_frame, decode_payload, encode_payload
from fl.models import Event, Stream
from fl.roles import Role
from fl.visibility import ANYONE, Principal, principal_of_device
from realtime.groups import Kind
from realtime.limits import CHUNK_BYTES, CHUNK_EVENTS
from realtime.log import LogPages
from realtime.opening import Opening, Resume, chunks_of, plan, plans, replay, resume_from
from tests.builders import participant, started_run
from tests.realtime.acts import make_stream, note, record, record_many, record_now

VIEWER = Principal(role=Role.VIEWER, user_id=1)


def resume(position, *, epoch="now", head=100, kept_from=None, history=50):
    kept = position.seq + 1 if kept_from is None and position else kept_from or 1
    return resume_from(position, epoch=epoch, head=head, kept_from=kept, history=history)


def test_one_who_says_nothing_gets_the_newest_events():
    assert resume(None) == Resume(50, recovered=False, reason="fresh")
    assert resume(None, head=7) == Resume(0, recovered=False, reason="fresh")


@pytest.mark.parametrize("seq", [0, 60, 100])
def test_one_who_is_within_the_log_gets_exactly_what_was_missed(seq):
    assert resume(Position(epoch="now", seq=seq)) == Resume(seq, recovered=True)


@pytest.mark.parametrize("position", [Position(epoch="other", seq=3), Position(epoch="now", seq=101)])
def test_another_history_or_one_ahead_of_ours_cannot_be_resumed(position):
    assert resume(position).reason == "epoch"


def test_a_negative_position_cannot_be_resumed():
    assert resume(Position(epoch="now", seq=-1)).reason == "epoch"


def test_events_that_are_no_longer_kept_cannot_be_recovered():
    assert resume(Position(epoch="now", seq=10), kept_from=31).reason == "too_old"


def test_one_who_is_too_far_behind_gets_what_is_true_instead(settings):
    settings.QFLARE_RESUME_EVENTS = 20

    assert resume(Position(epoch="now", seq=79)).reason == "too_far"
    assert resume(Position(epoch="now", seq=80)).recovered


# ── with the log ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def frames_of(the_plan):
    frames = [(stream, decode_frame(text)) async for stream, text in replay(the_plan, LogPages())]
    return [(stream, decode_payload(frame.event, frame.data)) for stream, frame in frames]


def asked(since=None, *, principal=VIEWER, kind=Kind.DASHBOARD, **options):
    return Opening(principal=principal, kind=kind, since=since or {}, **{"history": 50, **options})


def plan_for(since=None, **options):
    return plan(asked(since, **options))


async def test_a_resume_is_cut_into_chunks_and_reaches_the_head(loop):
    await record_many("system", 450)
    epoch = await asyncio.to_thread(lambda: Stream.objects.get(pk="system").epoch)

    the_plan = await asyncio.to_thread(plan_for, {"system": Position(epoch=epoch, seq=10)})
    recent = [payload for _, payload in await frames_of(the_plan)]

    assert [event.seq for chunk in recent for event in chunk.events] == list(range(11, 451))
    assert all(len(chunk.events) <= CHUNK_EVENTS for chunk in recent)
    assert [chunk.more for chunk in recent] == [True] * (len(recent) - 1) + [False]
    assert [chunk.since for chunk in recent] == [10, *[chunk.to for chunk in recent[:-1]]]
    assert all(chunk.recovered for chunk in recent)
    assert the_plan.snapshot is None


def test_many_who_come_at_once_get_what_each_would_get_alone_and_what_they_see_alike_is_read_once(transactional_db):
    first, second = participant(now=timezone.now()), participant(now=timezone.now())
    started_run(now=timezone.now())
    epoch, head = Stream.objects.values_list("epoch", "head").get(pk="system")
    openings = [
        asked(principal=VIEWER),
        asked({"system": Position(epoch=epoch, seq=head - 1)}, principal=replace(VIEWER, user_id=7)),
        asked(principal=ANYONE, kind=Kind.GENERAL),
        *[asked(principal=principal_of_device(one.device), kind=Kind.CLIENTS) for one in (first, second)],
    ]

    alone = [plan(one) for one in openings]
    with CaptureQueriesContext(connection) as together:
        assert plans(openings) == alone
    with CaptureQueriesContext(connection) as of_many:
        assert plans(openings + 20 * openings[:3]) == alone + 20 * alone[:3]

    assert len(of_many) == len(together)
    assert len({repr(one) for one in alone}) == len(alone)


def test_what_cannot_be_asked_for_keeps_nobody_else_out(transactional_db):
    broken = asked({"run:\udc80": Position(epoch="x", seq=1)})

    found = plans([asked(), broken, asked()])

    assert isinstance(found[1], UnicodeEncodeError)
    assert found[0] == found[2] == plan_for()


async def test_long_events_are_cut_by_bytes(loop):
    await record("system", *[note("x" * 60_000) for _ in range(10)])

    the_plan = await asyncio.to_thread(plan_for)
    frames = [text async for _, text in replay(the_plan, LogPages())]

    assert all(len(text.encode()) <= CHUNK_BYTES for text in frames)
    recent = [payload for _, payload in await frames_of(the_plan) if payload.event == "recent_events"]
    assert [event.seq for chunk in recent for event in chunk.events] == list(range(1, 11))


@pytest.mark.parametrize("kept", [0, 3, 199, 200, 201])
async def test_one_who_comes_fresh_gets_of_the_newest_events_those_that_are_kept(loop, kept):
    await record_many("system", 420)
    await asyncio.to_thread(lambda: Event.objects.filter(seq__lte=420 - kept).delete())

    the_plan = await asyncio.to_thread(lambda: plan_for(history=300))
    recent = [payload for _, payload in await frames_of(the_plan) if payload.event == "recent_events"]

    assert [event.seq for chunk in recent for event in chunk.events] == list(range(421 - kept, 421))
    assert (recent[0].since, recent[-1].to, recent[-1].more) == (420 - kept, 420, False)


async def test_one_who_comes_fresh_gets_history_and_then_what_is_true_at_the_same_position(loop):
    await record_many("system", 60)

    the_plan = await asyncio.to_thread(plan_for)
    recent, snapshot = [payload for _, payload in await frames_of(the_plan)]

    assert (recent.reason, recent.since, recent.to, len(recent.events)) == ("fresh", 10, 60, 50)
    assert snapshot.streams["system"].seq == 60
    assert snapshot.streams == the_plan.positions


async def test_a_stream_that_may_not_be_seen_is_not_mentioned_at_all(loop):
    await make_stream("run:1", task="linear")
    await record("system")
    positions = {name: Position(epoch="x", seq=1) for name in ("system", "run:1", "audience:admin", "run:99")}

    the_plan = await asyncio.to_thread(plan_for, positions, principal=ANYONE, kind=Kind.GENERAL)

    assert the_plan.parts == []
    assert the_plan.snapshot.streams == {}


async def test_a_device_follows_its_own_stream_from_what_it_has_acknowledged(loop, settings):
    from tests.builders import participant

    def prepare():
        device = participant().device
        record_now(device.stream, note("1"), note("2"), note("3"))
        device.acked_seq = 2
        device.save()
        principal = Principal(device_id=device.pk)
        return plan_for(principal=principal, kind=Kind.CLIENTS, history=0, always_snapshot=True)

    the_plan = await asyncio.to_thread(prepare)

    (part,) = the_plan.parts
    assert (part.resume, part.head) == (Resume(2, recovered=True), 3)
    assert the_plan.snapshot is not None


def test_a_snapshot_that_is_too_long_is_divided_and_loses_nothing():
    devices = [
        DeviceStatus(device_id=n, name="x" * 400, state="active", presence="online", reason="y" * 400)
        for n in range(600)
    ]
    snapshot = Snapshot(streams={"system": Position(epoch="e", seq=1)}, devices=devices)

    chunks = list(chunks_of(snapshot))

    assert [device.device_id for chunk in chunks for device in chunk.devices] == list(range(600))
    assert [chunk.more for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert all(len(encode_payload(chunk)) <= CHUNK_BYTES for chunk in chunks)
    assert all(chunk.streams == snapshot.streams for chunk in chunks)
