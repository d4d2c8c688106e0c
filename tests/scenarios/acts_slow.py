"""What tests of slow readers let happen in a server, and see there: large ticks, and how its sockets ended."""

import gc
import threading
from collections import Counter

from django.utils import timezone
from twisted.internet.tcp import Server as PlainTCP

from edge.protocol.server import DeviceTick, TrainingProgress
from fl import events
from qflare.outlets import waiting_in
from realtime.consumers.base import Consumer
from realtime.database import THREADS, _threads
from realtime.groups import Kind
from realtime.limits import CHUNK_EVENTS
from realtime.log import read_events
from tests.scenarios.control import GIVE_UP_SECONDS, command, on_loop

_endings = Counter()
_leave = Consumer._leave


async def _note_and_leave(consumer):
    if consumer.kind == Kind.DASHBOARD:  # which that of the stand's first look is not
        _endings[consumer._code] += 1
    await _leave(consumer)


Consumer._leave = _note_and_leave


@command("endings")
def endings():
    """Return how many dashboards ended with each code, as their consumers were told."""
    return {str(code): number for code, number in _endings.items()}


@command("let_each_thread_read")
def let_each_thread_read(stream):
    """Let each thread that reads the log read a page: what one has had in memory its allocator keeps for it."""
    all_of_them = threading.Barrier(THREADS)

    def read():
        all_of_them.wait(GIVE_UP_SECONDS)
        return [entry.frame.text for entry in read_events(stream, "any", after=0, to=CHUNK_EVENTS)]

    for reading in [_threads.submit(read) for _ in range(THREADS)]:
        assert len(reading.result(GIVE_UP_SECONDS)) == CHUNK_EVENTS


@command("kept_for_the_gone")
def kept_for_the_gone():
    """Return how many bytes still wait for peers of Daphne whose connections have ended."""
    return on_loop(lambda: sum(map(waiting_in, _gone())))


def _gone():
    return [each for each in gc.get_objects() if type(each) is PlainTCP and each.disconnected]


@command("tick_of_many")
def tick_of_many(key, progress, devices=200):
    """Tell how far so many devices are: about 30 KB."""
    ticks = [
        DeviceTick(
            assignment_id=n,
            device_id=n,
            device_name=f"device {n}",
            phase="training",
            progress=progress,
            local_epoch=1,
            local_epochs=1,
        )
        for n in range(devices)
    ]
    payload = TrainingProgress(run_id=1, round=1, phase="training", progress=progress, devices=ticks)
    events.tick(key, payload, stream="system", now=timezone.now())
