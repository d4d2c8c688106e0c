"""What the devices of a round tell is gathered: the newest of each, in one frame."""

from datetime import UTC, datetime, timedelta

import pytest

from edge.protocol.server import DeviceTick, encode_frame
from fl.signals import AtWork
from realtime.gathering import DEVICES_AT_ONCE, FORGET_SECONDS, RECENT_SECONDS, SWEEP_AT, Gathering
from realtime.limits import CHUNK_BYTES

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gathering(clock):
    return Gathering(clock)


def work(assignment, share=0.5, *, at=NOON, run=1, round=1, name="a device"):
    tick = DeviceTick(
        assignment_id=assignment,
        device_id=assignment,
        device_name=name,
        phase="training",
        progress=share,
        local_epoch=1,
        local_epochs=1,
        loss=0.25,
    )
    return AtWork(run_id=run, round=round, tick=tick, timestamp=at)


def told(gathering, key):
    return [(tick.assignment_id, tick.progress) for _, payload in gathering.frames(key) for tick in payload.devices]


def test_a_frame_holds_the_newest_of_each_device(gathering):
    for assignment, share in ((2, 0.1), (1, 0.1), (1, 0.2), (2, 0.3)):
        key = gathering.add(work(assignment, share))

    assert told(gathering, key) == [(1, 0.2), (2, 0.3)]


def test_rounds_and_runs_are_told_apart(gathering):
    keys = {gathering.add(work(1, run=run, round=round)) for run in (1, 2) for round in (1, 2)}

    assert len(keys) == 4
    assert all(len(told(gathering, key)) == 1 for key in keys)


def test_a_device_is_told_again_for_a_while_and_then_no_more(gathering, clock):
    gathering.add(work(1))
    clock.now = RECENT_SECONDS
    key = gathering.add(work(2))
    assert [assignment for assignment, _ in told(gathering, key)] == [1, 2]

    clock.now += 0.1

    assert [assignment for assignment, _ in told(gathering, key)] == [2]


def test_the_numbers_of_a_device_rise_even_when_the_clock_steps_back(gathering):
    numbers = []
    for hours in (0, 0, -1, 1):
        key = gathering.add(work(1, at=NOON + timedelta(hours=hours)))
        numbers += [tick.number for _, payload in gathering.frames(key) for tick in payload.devices]

    assert numbers == sorted(set(numbers))


def test_a_large_cohort_takes_several_frames_each_short_enough(gathering):
    for assignment in range(2 * DEVICES_AT_ONCE + 1):
        key = gathering.add(work(assignment, name="x" * 100))

    frames = gathering.frames(key)

    assert [len(payload.devices) for _, payload in frames] == [DEVICES_AT_ONCE, DEVICES_AT_ONCE, 1]
    assert len({name for name, _ in frames}) == 3
    assert all(len(encode_frame(payload.event, payload)) < CHUNK_BYTES for _, payload in frames)


def test_processes_have_keys_of_their_own():
    assert Gathering().add(work(1)) != Gathering().add(work(1))


def test_rounds_that_are_long_silent_are_forgotten(gathering, clock):
    for run in range(SWEEP_AT):
        key = gathering.add(work(1, run=run))
    clock.now = FORGET_SECONDS

    gathering.add(work(1, run=-1))

    assert len(gathering) == 1
    assert gathering.frames(key) == []
