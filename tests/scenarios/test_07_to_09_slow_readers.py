"""Peers that read too little: they cost what is bounded, lose nothing that lasts, and nobody else notices."""

import json
import time

from tests.fl.threads import eventually
from tests.realtime.raw import CLOSE, PING, PONG, TEXT, RawClient
from tests.scenarios.crowd import Crowd
from tests.scenarios.memory import MB, Level
from tests.scenarios.table import scenario

SMALL_BUFFER = 4096
EVENT_BYTES, AT_ONCE, BATCHES = 10_000, 50, 200
TOTAL = AT_ONCE * BATCHES
FULL_SECONDS = 1


def watcher(stand, server, **options):
    """Open the dashboard of a signed-in person, and return its client and its welcome."""
    since = options.pop("since", None)
    path = "/ws/dashboard" + (f"?since={since}" if since else "")
    client = RawClient(server.port, path, origin=server.url, headers=[f"Cookie: {stand.cookie()}"], **options)
    welcome = json.loads(client.text())
    assert welcome["event"] == "welcome"
    return client, welcome["data"]


def durable_until(client, seq):
    """Read until this event of `system` has come; return the durable frames' numbers, and the frames besides."""
    seqs, others = [], []
    while not seqs or seqs[-1] < seq:
        frame = json.loads(client.text())
        if frame["event"] == "recent_events" and frame["data"]["stream"] == "system":
            seqs += [event["seq"] for event in frame["data"]["events"]]
        if frame.get("stream") == "system":
            seqs.append(frame["seq"])
        else:
            others.append(frame)
    return seqs, others


@scenario(7, "a client that never reads is ended within the stall time, and comes back to all that it missed")
def test_who_never_reads_a_hundred_megabytes_is_ended_costs_little_and_comes_back_to_all_of_it(stand):
    # To send each event over Redis to whoever may see it would take most of the time: most are read from the log.
    waiting = {} if stand.layer == "memory" else {"QFLARE_LAYER_WAITING": "20"}
    server = stand.start(QFLARE_STALL_SECONDS="1", QFLARE_RESUME_EVENTS=str(TOTAL), **waiting)
    neighbours = Crowd(server, 3, cookie=stand.cookie())
    # Once in small: what threads and allocators keep for good is kept before it is measured.
    _, first_ended = stall_and_come_back(stand, server, neighbours, batches=BATCHES // 5)
    server.ask("let_each_thread_read", stream="system")
    level = Level(server)

    start, ended = stall_and_come_back(stand, server, neighbours, batches=BATCHES)

    assert level.rise < 10 * MB
    assert server.ask("kept_for_the_gone") == 0
    assert server.ask("endings")["4008"] == first_ended + ended
    neighbours.assert_exact()
    late, _ = watcher(stand, server, since=f"system:{start['epoch']}:{start['seq'] - 1}")
    assert how_it_resumes(late) == (False, "too_far", "snapshot")


def stall_and_come_back(stand, server, neighbours, batches):
    """Let somebody not read so many batches, and come back to all of them; return where it stood, and how many ended.

    One after another comes and never reads, so that at hardly any time of all that is published there is none.
    """
    stuck, welcome = watcher(stand, server, receive_buffer=SMALL_BUFFER)
    start = welcome["streams"]["system"]
    others = []
    for batch in range(batches):
        if server.ask("counts")["connections"] == 3:
            others.append(watcher(stand, server, receive_buffer=SMALL_BUFFER)[0])
        publish(server, neighbours, start["seq"] + 1 + batch * AT_ONCE, AT_ONCE)
    eventually(lambda: server.ask("counts")["connections"] == 3)
    assert all(one.close_code() in (1006, 4008) for one in (stuck, *others))
    again, _ = watcher(stand, server, since=f"system:{start['epoch']}:{start['seq']}")
    last = start["seq"] + batches * AT_ONCE
    seqs, frames = durable_until(again, last)
    assert seqs == list(range(start["seq"] + 1, last + 1))
    assert all(frame["data"]["recovered"] for frame in frames if frame["event"] == "recent_events")
    again.drop()
    return start, 1 + len(others)


def publish(server, readers, first, count):
    """Record events in the server, and wait until all these readers have them: only who does not read is behind."""
    server.ask("record", stream="system", count=count, size=EVENT_BYTES)
    readers.wait_for("system", first + count - 1)


def how_it_resumes(client):
    """Read to the end of the opening; return whether what was missed came, why not, and what came instead."""
    found = {}
    while "snapshot" not in found:
        frame = json.loads(client.text())
        found[frame["event"]] = frame["data"]
        if frame["event"] == "recent_events" and frame["data"]["recovered"]:
            break
    recent = found["recent_events"]
    return recent["recovered"], recent["reason"], "snapshot" if "snapshot" in found else ""


@scenario(8, "one frame a second is enough to stay: every durable event comes, of ticks the newest")
def test_who_reads_one_frame_in_five_stays_and_gets_all_that_lasts_and_the_newest_tick(stand):
    """A scaled second is five ticks that a neighbour has read, so that no clock decides how far the slow one is."""
    seconds, ticks_a_second, seconds_a_round = 40, 5, 4
    server = stand.start(QFLARE_TICK_SECONDS="0.01", QFLARE_STALL_SECONDS="10")
    neighbour, _ = watcher(stand, server)
    slow, _ = watcher(stand, server, receive_buffer=SMALL_BUFFER)
    number, at_neighbour, at_slow = 0, Seen(), Seen()
    opened(neighbour), opened(slow)

    for second in range(1, seconds + 1):
        for _ in range(ticks_a_second):
            number += 1
            server.ask("tick_of_many", key="a run", progress=number / 1000)
            while at_neighbour.progress < number / 1000:
                at_neighbour.take(json.loads(neighbour.text()))
        if second % seconds_a_round == 0:
            server.ask("record", stream="system", count=1, size=100)
        at_slow.take(json.loads(slow.text()))
    rounds = seconds // seconds_a_round
    while at_slow.seqs[-1:] != [rounds] or at_slow.progress < number / 1000:
        at_slow.take(json.loads(slow.text()))

    assert at_neighbour.ticks == number
    assert at_slow.seqs == list(range(1, rounds + 1))
    assert at_slow.ticks < number / 2
    assert at_slow.numbers == sorted(set(at_slow.numbers))
    assert server.ask("counts")["connections"] == 2
    still_answers(slow)


@scenario(9, "a queue that peaks above its limit and drains ends nobody")
def test_a_queue_that_is_full_for_a_while_and_drains_ends_nobody(stand):
    server = stand.start(QFLARE_STALL_SECONDS="60", QFLARE_PING_SECONDS="600")
    neighbours = Crowd(server, 2, cookie=stand.cookie())
    slow, _ = watcher(stand, server, receive_buffer=SMALL_BUFFER)
    opened(slow)
    count = 2500

    for peak in range(3):
        server.ask("record", stream="system", count=count, size=300)
        neighbours.wait_for("system", (peak + 1) * count)
        if peak == 0:
            # Not only for a moment.
            until = time.monotonic() + FULL_SECONDS
            eventually(lambda until=until: time.monotonic() > until)
        # What is above the queue's limit is read from the log.
        assert server.ask("counts")["behind"] == 1
        seqs, _ = durable_until(slow, (peak + 1) * count)
        assert seqs == list(range(peak * count + 1, (peak + 1) * count + 1))
        eventually(lambda: (counts := server.ask("counts"))["queued"] == counts["behind"] == 0)

    still_answers(slow)
    neighbours.assert_exact()
    assert server.ask("endings") == {}


class Seen:
    """What a client has read: numbers of durable events, and of ticks; and how far the newest tick was."""

    def __init__(self):
        self.seqs, self.numbers, self.progress = [], [], 0.0

    @property
    def ticks(self):
        return len(self.numbers)

    def take(self, frame):
        if frame.get("stream") == "system":
            self.seqs.append(frame["seq"])
        elif frame["event"] == "training_progress":
            self.numbers.append(frame["number"])
            self.progress = frame["data"]["progress"]


def opened(client):
    """Read to the end of the opening."""
    while (frame := json.loads(client.text()))["event"] != "snapshot" or frame["data"]["more"]:
        pass


def still_answers(client):
    """Ping, and read what waits before the answer."""
    client.send(b"there?", PING)
    while (found := client.receive()) != (PONG, b"there?"):
        assert found[0] in (TEXT, PING), found
    assert found[0] != CLOSE
