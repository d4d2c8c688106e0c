from datetime import UTC, datetime, timedelta

import pytest

from fl.signals import Ticked
from realtime.pacing import IDLE_SECONDS, SWEEP_AT, SWEEP_SECONDS, Pacer

TICK_SECONDS = 0.25
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Loop:
    """A loop's clock and timers, by hand."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, seconds, function, *arguments):
        self.timers.append((self.now + seconds, function, arguments))

    def go_on(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, function, arguments in due:
            function(*arguments)


def tick(key, data, at=NOON):
    return Ticked(key=key, stream="system", event="training_progress", data=data, timestamp=at)


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def pacer(loop, sent):
    return Pacer(lambda tick, number: sent.append((tick.key, tick.data, number)), clock=loop.time)


def test_a_key_speaks_at_most_four_times_a_second_and_its_newest_always_goes_out(loop, sent, pacer):
    for n in range(100):
        pacer.offer(tick("a", str(n)), loop)
        loop.go_on(0.02)
    loop.go_on(TICK_SECONDS)

    assert len(sent) <= 2 / TICK_SECONDS + 2
    assert sent[0][1] == "0"
    assert sent[-1][1] == "99"


def test_the_first_after_a_silence_may_wait_for_others(loop, sent):
    pacer = Pacer(lambda tick, number: sent.append(tick.data), clock=loop.time, gather_seconds=0.02)
    for n in range(3):
        pacer.offer(tick("a", str(n)), loop)
    assert sent == []

    loop.go_on(0.02)
    pacer.offer(tick("a", "3"), loop)
    loop.go_on(0.02)
    assert sent == ["2"]

    loop.go_on(TICK_SECONDS)
    assert sent == ["2", "3"]


def test_keys_do_not_hold_each_other_back(loop, sent, pacer):
    pacer.offer(tick("a", "1"), loop)
    pacer.offer(tick("b", "2"), loop)

    assert [key for key, _, _ in sent] == ["a", "b"]


def test_numbers_rise_even_when_the_clock_steps_back(loop, sent, pacer):
    for hours in (0, -1, -2, 1):
        pacer.offer(tick("a", "x", NOON + timedelta(hours=hours)), loop)
        loop.go_on(1)

    numbers = [number for _, _, number in sent]
    assert numbers == sorted(set(numbers))


def test_without_a_loop_to_wait_on_a_tick_too_many_is_dropped(loop, sent, pacer):
    pacer.offer(tick("a", "1"), None)
    pacer.offer(tick("a", "2"), None)
    loop.now += TICK_SECONDS
    pacer.offer(tick("a", "3"), None)

    assert [data for _, data, _ in sent] == ["1", "3"]


def test_keys_that_are_long_silent_are_forgotten(loop, pacer):
    for n in range(SWEEP_AT):
        pacer.offer(tick(f"key {n}", "x"), loop)
    loop.now += IDLE_SECONDS + 1

    pacer.offer(tick("one more", "x"), loop)

    assert len(pacer._keys) == 1


def test_while_many_keys_speak_they_are_not_looked_through_for_each_tick(loop, pacer):
    for n in range(SWEEP_AT + 1):
        pacer.offer(tick(f"key {n}", "x"), loop)
    looked_through = pacer._keys

    loop.now += SWEEP_SECONDS / 2
    pacer.offer(tick("early", "x"), loop)
    early = pacer._keys is looked_through
    loop.now += SWEEP_SECONDS
    pacer.offer(tick("late", "x"), loop)

    assert early
    assert pacer._keys is not looked_through
