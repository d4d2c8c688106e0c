"""Frames written past queue and writer: to the peer it must be the same as if all had gone the long way."""

import asyncio
import json
import random

import pytest

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import decode_frame
from fl.models import Stream
from fl.roles import Role
from fl.visibility import Principal
from realtime.batches import BATCH_BYTES, Batch, portions_of, wire_of
from realtime.connection import Connection, Counters, Start
from realtime.frames import Frame
from realtime.groups import Kind
from realtime.limits import CHUNK_EVENTS, QueueLimits
from realtime.log import LogPages, read_events
from realtime.messages import Labels, Logged, Tick
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
        self.texts += texts_of(frame)
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
    together = []

    for index, event in enumerate(events):
        if index == joins_at:
            for connection in connections:
                start = Start(event.stream, event.epoch, replayed, event.labels)
                connection.resume([start], replay(events[:replayed]))
        together.append(event)
        if chance.random() < 0.2:
            together.append(tick("k", index))
        if chance.random() < 0.5:
            for connection in connections:
                connection.deliver_all(Batch(together))
            together = []
        if chance.random() < 0.05:
            for connection in connections:
                connection.push(Frame(f'{{"event":"said","data":{{"after":{index}}}}}'))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            await eventually(lambda: not quick_one.is_behind and not quick_one.queued[0])
    for connection in connections:
        connection.deliver_all(Batch([*together, events[-1]]))
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
    connection.deliver_tick(tick("k", 1))
    connection.deliver_all(Batch([tick("k", 2), tick("l", 1)]))

    assert peer.texts == []


async def live(peer, *, at=0, **options):
    """Return a connection that follows `system` from an event on, and has nothing more to do."""
    connection = connect(peer, **options)
    epoch = await asyncio.to_thread(lambda: Stream.objects.get(pk="system").epoch)
    connection.resume([Start("system", epoch, at, Labels())], replay([]))
    await eventually(lambda: not connection.is_behind)
    return connection


@pytest.fixture
def willing():
    """A peer whose system always has room, and which notes how much it was given at a time."""
    peer = Peer(random.Random(0))
    peer.writes = []

    def take(data):
        peer.writes.append(texts_of(data))
        peer.texts += peer.writes[-1]
        return True

    peer.take_at_once = take
    return peer


async def test_what_comes_together_is_written_together_in_order(loop, willing):
    await record_many("system", 3)
    connection = await live(willing, write_at_once=willing.take_at_once)
    first, second, third = (await logged_events())[:3]

    connection.deliver_all(Batch([first, tick("k", 1), second, third]))

    assert willing.writes == [[first.frame.text, tick("k", 1).frame.text, second.frame.text, third.frame.text]]
    assert (connection.cursors["system"].last, connection.cursors["system"].heard) == (3, 3)
    await connection.end()


async def test_of_what_comes_together_only_what_is_new_and_followed_is_written(loop, willing):
    await record_many("system", 3)
    connection = await live(willing, at=1, write_at_once=willing.take_at_once)
    events = (await logged_events())[:3]
    connection.narrowed = True
    elsewhere = Tick("run:7", "k", tick("k", 1).frame, Labels())

    connection.deliver_all(Batch([*events, elsewhere]))

    assert willing.writes == [[events[1].frame.text, events[2].frame.text]]
    await connection.end()


@pytest.mark.parametrize("broken", ["hole", "held", "labels", "unknown stream"])
async def test_where_something_is_to_be_looked_at_each_event_goes_its_own_way(loop, willing, broken):
    await record_many("system", 4)
    connection = await live(willing, write_at_once=willing.take_at_once)
    events = (await logged_events())[:4]
    match broken:
        case "hole":
            del events[1]
        case "held":
            connection.hold(["system"])
        case "labels":
            events[3].labels = Labels(task="digits")
        case "unknown stream":
            connection.drop(["system"])

    connection.deliver_all(Batch(events))
    if broken == "held":
        connection.resume([], replay([]), released=["system"])

    await eventually(lambda: len(willing.texts) == 4)
    assert [decode_frame(text).seq for text in willing.texts] == [1, 2, 3, 4]
    await connection.end()


async def test_what_is_fed_from_the_log_takes_few_writes_while_the_peer_has_room(loop, willing):
    await record_many("system", EVENTS)
    events = await logged_events()
    connection = await live(willing, write_at_once=willing.take_at_once)

    connection.deliver(events[-1])

    await eventually(lambda: len(willing.texts) == EVENTS)
    assert willing.texts == [event.frame.text for event in events]
    bytes_in_all = len(wire_of(events))
    assert len(willing.writes) <= bytes_in_all // BATCH_BYTES + 2 * -(-EVENTS // CHUNK_EVENTS)
    await eventually(lambda: not connection.is_behind)
    await connection.end()


@pytest.mark.parametrize("gone", ["left", "held", "closed"])
async def test_of_what_is_fed_from_the_log_nothing_is_written_once_it_is_not_followed(loop, willing, gone):
    await record_many("system", 10)
    events = (await logged_events())[:10]
    connection = await live(willing, write_at_once=willing.take_at_once)
    acts = {"left": lambda: connection.drop(["system"]), "held": lambda: connection.hold(["system"])}
    after, page = connection._log.after, []

    async def read_slowly(*place):
        page.extend(await after(*place))
        acts.get(gone, lambda: connection.close(CloseCode.NORMAL))()
        return page

    connection._log.after = read_slowly
    connection.deliver(events[-1])
    await eventually(lambda: page)
    await eventually(lambda: not connection.is_behind or connection.closed_with is not None)
    await connection.end()

    assert not [text for text in willing.texts if '"seq"' in text]


async def test_events_are_put_together_up_to_a_size_and_in_order(db):
    large = Logged("system", "e", 2, Frame("x" * (BATCH_BYTES + 1)), Labels())
    events = [*(tick("k", number) for number in range(300)), large, tick("k", 300)]

    portions = list(portions_of(events))

    assert [event for portion in portions for event in portion] == events
    assert all(len(wire_of(portion)) <= BATCH_BYTES for portion in portions if portion != [large])
    assert len(portions) == 2 + -(-len(wire_of(events[:300])) // BATCH_BYTES)


def texts_of(data):
    """Return the texts of frames that were written at once."""
    texts = []
    while data:
        start = {126: 4, 127: 10}.get(data[1], 2)
        size = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
        texts.append(data[start : start + size].decode())
        data = data[start + size :]
    return texts


def tick(key, number):
    text = f'{{"event":"training_progress","data":{{"progress":{number}}},"key":"{key}","stream":"system"}}'
    return Tick("system", key, Frame(text), Labels())


def said(peer):
    return [text for text in peer.texts if '"said"' in text]
