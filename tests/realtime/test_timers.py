"""What comes due within one turn is done together, never too soon, and each on its own."""

import asyncio
import gc
import weakref

import pytest

from realtime.timers import SharedTimer, SharedTimers

TURN_SECONDS = 0.05


@pytest.fixture
async def timers():
    return SharedTimers(TURN_SECONDS)


@pytest.fixture
async def wakes(monkeypatch):
    """The moments for which timers of the loop were set."""
    loop = asyncio.get_running_loop()
    found, call_at = [], loop.call_at

    def noted(when, *arguments, **options):
        found.append(when)
        return call_at(when, *arguments, **options)

    monkeypatch.setattr(loop, "call_at", noted)
    return found


async def all_of(calls):
    return await asyncio.wait_for(asyncio.gather(*calls), timeout=30)


def call_in(timers, seconds):
    """Return a future that holds when it was called, and for when that was asked."""
    loop = asyncio.get_running_loop()
    called, due = loop.create_future(), loop.time() + seconds
    timers.call_later(seconds, lambda: called.set_result((due, loop.time())))
    return called


async def test_nothing_is_called_before_its_time(timers):
    calls = [call_in(timers, number * TURN_SECONDS / 7) for number in range(30)]

    for due, called_at in await all_of(calls):
        assert called_at >= due


async def test_a_hundred_that_come_due_in_two_turns_wake_the_loop_for_two_or_three(timers, wakes):
    calls = [call_in(timers, 1 + number * TURN_SECONDS / 50) for number in range(100)]

    assert 2 <= len(wakes) <= 3
    assert all(abs(when / TURN_SECONDS - round(when / TURN_SECONDS)) < 1e-6 for when in wakes)
    await all_of(calls)


async def test_what_is_cancelled_is_not_called_and_all_else_is(timers):
    called = []
    first = timers.call_later(0, lambda: called.append("first"))
    second = timers.call_later(0, lambda: called.append("second"))

    first.cancel()
    await all_of([call_in(timers, TURN_SECONDS)])

    assert called == ["second"]
    assert first.is_over
    assert second.is_over


async def test_what_is_cancelled_is_not_kept_until_its_time(timers):
    class Owner:
        def act(self):
            pytest.fail("called though it was cancelled")

    owner = Owner()
    gone = weakref.ref(owner)
    timer = timers.call_later(3600, owner.act)

    timer.cancel()
    del owner, timer
    gc.collect()

    assert gone() is None
    assert [len(turn) for turn in timers._turns.values()] == [0]


async def test_one_that_fails_is_reported_and_takes_no_other_with_it(timers):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    error = ValueError("broken")

    def fail():
        raise error

    timers.call_later(0, fail)
    await all_of([call_in(timers, 0), call_in(timers, TURN_SECONDS)])

    assert reported == [error]


async def test_a_turn_that_is_over_is_forgotten(timers):
    await all_of([call_in(timers, 0)])

    assert timers._turns == {}


async def test_whoever_keeps_a_timer_that_is_over_keeps_no_other_of_its_turn(timers):
    done = asyncio.get_running_loop().create_future()
    kept = timers.call_later(TURN_SECONDS, lambda: None)
    timers.call_later(TURN_SECONDS, lambda: done.set_result(None))
    await asyncio.wait_for(done, timeout=30)

    await asyncio.sleep(0)
    gc.collect()

    assert [one for one in gc.get_objects() if type(one) is SharedTimer] == [kept]
