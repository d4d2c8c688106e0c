"""One connection's queue and places in streams, with the real log below it and a peer that the test plays."""

import asyncio
import gc
import sys

import pytest

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Error, decode_frame
from fl.models import Event, Stream
from fl.roles import Role
from fl.visibility import Principal
from realtime.connection import Connection, Counters, Start
from realtime.consumers.base import nothing
from realtime.frames import Frame
from realtime.groups import Kind
from realtime.limits import QueueLimits
from realtime.log import LogPages
from realtime.messages import Labels, Logged, Tick
from tests.realtime.acts import note, record, record_many
from tests.realtime.sockets import eventually

NO_LABELS = Labels()
VIEWER = Principal(role=Role.VIEWER, user_id=1)


class Peer:
    """The other end: takes frames when it likes."""

    def __init__(self):
        self.frames = []
        self.code = None
        self.takes = asyncio.Event()
        self.takes.set()
        self.at_seq = {}
        """What happens while an event is being sent."""

    async def take(self, frame):
        await self.takes.wait()
        self.frames.append(decode_frame(frame))
        if self.frames[-1].seq in self.at_seq:
            self.at_seq[self.frames[-1].seq]()

    async def close(self, code):
        self.code = code

    @property
    def seqs(self):
        return [frame.seq for frame in self.frames if frame.seq]


@pytest.fixture
async def peer():
    return Peer()


@pytest.fixture
async def connect(loop, peer):
    made = []

    def make(*, frames=10, size=10**6, principal=VIEWER):
        connection = Connection(
            kind=Kind.DASHBOARD,
            send=peer.take,
            close=peer.close,
            log=LogPages(),
            counters=Counters(),
            lost=lambda: None,
            limits=QueueLimits(frames=frames, size=size),
        )
        connection.principal = principal
        connection.start()
        made.append(connection)
        return connection

    yield make
    for connection in made:
        await connection.end()


async def events_of(stream="system", labels=NO_LABELS):
    """Return all events of a stream as the hub hands them out."""

    def read():
        row = Stream.objects.get(pk=stream)
        numbers = Event.objects.filter(stream=row).order_by("seq").values_list("seq", flat=True)
        return row.epoch, list(numbers)

    epoch, numbers = await asyncio.to_thread(read)
    frame = '{"event":"error_notification","data":{},"stream":"%s","seq":%d}'
    return [Logged(stream, epoch, seq, Frame(frame % (stream, seq)), labels) for seq in numbers]


def start_at(connection, event, last=0):
    connection.resume([Start(event.stream, event.epoch, last, event.labels)], nothing())


async def test_what_does_not_fit_the_queue_is_fed_from_the_log_in_order(connect, peer):
    await record_many("system", 500)
    events = await events_of()
    connection = connect(frames=10)
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()

    for event in events:
        connection.deliver(event)

    assert connection.queued[0] <= 10
    assert connection.is_behind
    peer.takes.set()
    await eventually(lambda: len(peer.seqs) == 500)
    assert peer.seqs == list(range(1, 501))


async def test_news_while_the_last_of_a_page_is_sent_is_not_taken_for_a_hole(connect, peer):
    await record_many("system", 21)
    events = await events_of()
    connection = connect(frames=10)
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()
    for event in events[:20]:
        connection.deliver(event)
    assert connection.is_behind

    peer.at_seq[20] = lambda: connection.deliver(events[20])
    peer.takes.set()

    await eventually(lambda: len(peer.seqs) == 21 or connection.closed_with)
    assert connection.closed_with is None
    assert peer.seqs == list(range(1, 22))


async def test_bytes_count_as_frames_do(connect, peer):
    await record_many("system", 20)
    events = await events_of()
    connection = connect(frames=1000, size=300)
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()

    for event in events:
        connection.deliver(event)

    assert connection.queued[1] <= 300
    peer.takes.set()
    await eventually(lambda: peer.seqs == list(range(1, 21)))


async def test_what_happens_while_a_replay_goes_on_comes_after_it(connect, peer):
    await record_many("system", 30)
    events = await events_of()
    connection = connect()
    gate = asyncio.Event()

    async def replay():
        yield "system", '{"event":"recent_events","data":{}}'
        await gate.wait()
        yield "", '{"event":"snapshot","data":{}}'

    for event in events[:25]:
        connection.deliver(event)
    connection.resume([Start("system", events[0].epoch, 20, Labels())], replay())
    for event in events[25:]:
        connection.deliver(event)
    gate.set()

    await eventually(lambda: len(peer.seqs) == 10)
    assert [frame.event for frame in peer.frames[:2]] == ["recent_events", "snapshot"]
    assert peer.seqs == list(range(21, 31))


async def test_a_stream_that_began_during_the_opening_is_followed_from_its_beginning(connect, peer):
    await record_many("run:1", 3)
    connection = connect()

    for event in await events_of("run:1"):
        connection.deliver(event)
    connection.resume([], nothing())

    await eventually(lambda: peer.seqs == [1, 2, 3])


@pytest.mark.parametrize("waits", [True, False], ids=["while it is opened", "once it is open"])
async def test_a_stream_that_nobody_spoke_of_is_told_from_its_beginning_wherever_it_stands(connect, peer, waits):
    """A run that goes on when one comes, and has ended when it is read what one follows, is heard of in its middle."""
    await record_many("run:1", 5)
    events = await events_of("run:1")
    connection = connect()

    for event in events[2:4] if waits else []:
        connection.deliver(event)
    connection.resume([], nothing())
    connection.deliver(events[4])

    await eventually(lambda: peer.seqs == [1, 2, 3, 4, 5])


async def test_a_waiting_tick_is_replaced_and_a_full_queue_takes_no_new_one(connect, peer):
    connection = connect(frames=3)
    connection.resume([], nothing())
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()
    connection.push(Frame('{"event":"first","data":{}}'))
    await eventually(lambda: connection.sending_since is not None)

    for n in range(10):
        for key in "abcde":
            frame = f'{{"event":"training_progress","data":{{}},"key":"{key}","number":{n}}}'
            connection.deliver_tick(Tick("system", key, Frame(frame), Labels()))

    peer.takes.set()
    await eventually(lambda: len(peer.frames) == 4)
    assert [(frame.key, frame.number) for frame in peer.frames[1:]] == [("a", 9), ("b", 9), ("c", 9)]


async def test_control_frames_are_never_dropped(connect, peer):
    connection = connect(frames=2)
    peer.takes.clear()

    for n in range(20):
        connection.say(Error(code=str(n), message=""))

    peer.takes.set()
    await eventually(lambda: len(peer.frames) == 20)


async def test_a_connection_that_rests_keeps_nothing_of_what_it_has_sent(connect, peer):
    """It may rest for hours, and a frame may be large."""
    connection = connect()
    frame = Frame('{"event":"error","data":{"code":"last","message":""}}')
    ours = sys.getrefcount(frame)

    connection.push(frame)
    await eventually(lambda: peer.frames and connection.is_idle)

    assert sys.getrefcount(frame) == ours


@pytest.fixture
def no_garbage_collection():
    gc.disable()
    yield
    gc.enable()


async def test_what_a_connection_that_has_ended_had_at_hand_is_free_at_once(connect, peer, no_garbage_collection):
    """Each peer that is ended for not reading would keep a page of the log until garbage is collected."""
    connection = connect()
    peer.takes.clear()
    frame = Frame('{"event":"error","data":{"code":"last","message":""}}')
    connection.resume([], frames_with(frame))
    await eventually(lambda: connection.sending_since is not None)
    ours = sys.getrefcount(frame)

    await connection.end()

    await eventually(lambda: sys.getrefcount(frame) < ours)


async def frames_with(frame):
    """Replay one frame, and keep it at hand."""
    yield "", frame.text


async def test_closing_says_why_after_the_replies_and_before_the_code(connect, peer):
    await record_many("system", 5)
    events = await events_of()
    connection = connect()
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()
    connection.say(Error(code="first", message="on its way"))
    for event in events:
        connection.deliver(event)
    connection.say(Error(code="why", message="because"))

    connection.close(CloseCode.FORBIDDEN)
    connection.close(CloseCode.NORMAL)
    peer.takes.set()

    await eventually(lambda: peer.code is not None)
    assert peer.code == CloseCode.FORBIDDEN
    assert [frame.event for frame in peer.frames] == ["error", "error", "bye"]


async def test_with_lesser_rights_a_stream_is_left_and_what_waits_of_it_is_not_sent(connect, peer):
    await record_many("system", 5)
    events = await events_of()
    connection = connect()
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    peer.takes.clear()
    connection.push(Frame('{"event":"on its way","data":{}}'))
    await eventually(lambda: connection.sending_since is not None)
    for event in events:
        connection.deliver(event)

    lost = connection.become(Principal())
    peer.takes.set()
    connection.push(Frame('{"event":"last","data":{}}'))

    await eventually(lambda: peer.frames and peer.frames[-1].event == "last")
    assert lost == ["system"]
    assert peer.seqs == []
    assert [frame.event for frame in peer.frames] == ["on its way", "error", "last"]
    assert b"system" in bytes(peer.frames[1].data)


async def test_a_stream_whose_labels_change_is_left_by_those_who_may_see_it_no_more(connect, peer):
    await record_many("run:1", 2)
    labels = Labels(task="linear")
    first, second = await events_of("run:1", labels)
    connection = connect(principal=Principal(device_id=1, tasks=frozenset({"linear"})))
    start_at(connection, first)
    connection.deliver(first)
    await eventually(lambda: peer.seqs == [1])

    connection.deliver(Logged(second.stream, second.epoch, 2, second.frame, Labels(task="digits")))

    assert "run:1" not in connection.cursors
    await eventually(lambda: peer.frames[-1].event == "error")
    assert b"run:1" in bytes(peer.frames[-1].data)


async def test_events_that_are_no_longer_kept_end_the_connection_instead_of_leaving_a_hole(connect, peer):
    await record_many("system", 600)
    events = await events_of()
    connection = connect(frames=1)
    start_at(connection, events[0])
    await eventually(lambda: not connection.is_behind)
    await asyncio.to_thread(lambda: Event.objects.filter(seq__lte=300).delete())

    connection.deliver(events[-1])

    await eventually(lambda: peer.code is not None)
    assert peer.code == CloseCode.POSITION_LOST
    assert peer.seqs == []


async def test_a_replay_that_fails_ends_the_connection_so_that_it_resumes(connect, peer, caplog):
    connection = connect()

    async def replay():
        yield "", '{"event":"recent_events","data":{}}'
        raise LookupError("the log is gone")

    connection.resume([], replay())

    await eventually(lambda: peer.code is not None)
    assert peer.code == CloseCode.POSITION_LOST
    assert "a replay" in caplog.text


async def test_readers_who_are_behind_share_their_pages(loop, django_assert_num_queries):
    await record("system", *[note(str(n)) for n in range(400)])
    log = LogPages()
    epoch = await asyncio.to_thread(lambda: Stream.objects.get(pk="system").epoch)

    pages = await asyncio.gather(*[log.after("system", epoch, seq) for seq in (0, 0, 50, 199)])

    assert [page[0].seq for page in pages] == [1, 1, 51, 200]
    assert pages[0][60] is pages[2][10]
