"""Frames written past queue and writer: to the peer it must be the same as if all had gone the long way."""

import asyncio
import json
import random

import pytest

from edge.protocol.server import decode_frame
from fl.models import Stream
from fl.roles import Role
from fl.visibility import Principal
from realtime.connection import Connection, Counters, Start
from realtime.frames import Frame
from realtime.groups import Kind
from realtime.limits import QueueLimits
from realtime.log import LogPages, read_events
from realtime.messages import Labels, Logged
from tests.realtime.acts import record_many
from tests.realtime.sockets import eventually

EVENTS = 400


class Peer:
    """The other end, in whose kernel there is room or not, as chance has it."""

    def __init__(self, chance):
        self.chance = chance
        self.texts = []
        self.at_once = 0

    async def take(self, text):
        if self.chance.random() < 0.3:
            await asyncio.sleep(0)
        self.texts.append(text)

    def take_at_once(self, frame):
        if self.chance.random() < 0.3:
            return False
        header = {126: 4, 127: 10}.get(frame[1], 2)
        self.texts.append(frame[header:].decode())
        self.at_once += 1
        return True

    async def close(self, code):
        pass

    @property
    def without_ticks(self):
        return [text for text in self.texts if "training_progress" not in text]

    def ticks(self, key):
        return [json.loads(text)["data"]["progress"] for text in self.texts if f'"key":"{key}"' in text]


def connect(peer, **options):
    connection = Connection(
        kind=Kind.DASHBOARD,
        send=peer.take,
        close=peer.close,
        log=LogPages(),
        counters=Counters(),
        lost=lambda: None,
        limits=QueueLimits(frames=20, size=10**6),
        **options,
    )
    connection.principal = Principal(role=Role.VIEWER, user_id=1)
    connection.start()
    return connection


async def logged_events():
    """Return the events of `system` as the hub hands them out, with the letters that the log gives too."""
    epoch = await asyncio.to_thread(lambda: Stream.objects.get(pk="system").epoch)
    entries = await asyncio.to_thread(read_events, "system", epoch, after=0, to=EVENTS)
    return [Logged("system", epoch, entry.seq, entry.frame, Labels()) for entry in entries]


async def replay(events):
    for event in events:
        await asyncio.sleep(0)
        yield event.stream, event.frame.text


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_written_at_once_the_peer_gets_what_it_gets_the_long_way(loop, seed):
    chance = random.Random(seed)
    await record_many("system", EVENTS)
    events = await logged_events()
    quick, slow = Peer(chance), Peer(chance)
    connections = [connect(quick, write_at_once=quick.take_at_once), connect(slow)]
    quick_one = connections[0]
    replayed = chance.randrange(EVENTS // 2)
    joins_at = chance.randrange(replayed, EVENTS // 2 + 1)

    for index, event in enumerate(events):
        if index == joins_at:
            for connection in connections:
                start = Start(event.stream, event.epoch, replayed, event.labels)
                connection.resume([start], replay(events[:replayed]))
        for connection in connections:
            connection.deliver(event)
            if chance.random() < 0.2:
                connection.deliver_tick("system", Labels(), "k", tick("k", index))
        if chance.random() < 0.05:
            for connection in connections:
                connection.push(Frame(f'{{"event":"said","data":{{"after":{index}}}}}'))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            await eventually(lambda: not quick_one.is_behind and not quick_one.queued[0])
    await eventually(lambda: not any(one.is_behind or one.queued[0] for one in connections))
    await eventually(lambda: len(quick.without_ticks) == len(slow.without_ticks))

    for peer in (quick, slow):
        durable = [frame.seq for frame in map(decode_frame, peer.texts) if frame.seq]
        assert durable == list(range(1, EVENTS + 1))
        assert peer.ticks("k") == sorted(peer.ticks("k"))
    assert said(quick) == said(slow)
    assert [text for text in quick.texts if '"seq"' in text] == [text for text in slow.texts if '"seq"' in text]
    assert quick.at_once > 10
    for connection in connections:
        await connection.end()


async def test_what_waits_goes_before_what_could_be_written_at_once(loop):
    peer = Peer(random.Random(0))
    peer.take_at_once = lambda frame: pytest.fail("written before what waits")
    connection = connect(peer, write_at_once=lambda frame: peer.take_at_once(frame))
    # The writer has not run yet, so the first frame waits for it; the second must too.

    connection.push(Frame('{"event":"first","data":{}}'))
    connection.push(Frame('{"event":"second","data":{}}'))

    await eventually(lambda: len(peer.texts) == 2)
    assert [decode_frame(text).event for text in peer.texts] == ["first", "second"]
    await connection.end()


async def test_after_its_end_nothing_is_written_at_once(loop):
    peer = Peer(random.Random(1))
    connection = connect(peer, write_at_once=peer.take_at_once)
    connection.resume([], replay([]))
    await asyncio.sleep(0.01)
    await connection.end()

    connection.push(Frame('{"event":"late","data":{}}'))
    connection.deliver_tick("system", Labels(), "k", tick("k", 1))

    assert peer.texts == []


def tick(key, number):
    return Frame(f'{{"event":"training_progress","data":{{"progress":{number}}},"key":"{key}","stream":"system"}}')


def said(peer):
    return [text for text in peer.texts if '"said"' in text]
