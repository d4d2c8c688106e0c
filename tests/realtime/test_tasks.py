"""What is to end ends, also where it overhears its cancel, and others' cancels are left to them."""

import asyncio
import contextlib

import pytest

from realtime import tasks
from realtime.tasks import within


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.05)


async def overhear(times):
    """Wait for ever, but for a cancel more than are overheard."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_what_takes_too_long_ends_however_often_it_overhears_that(times):
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            async with within(0.05):
                await overhear(times)

    assert asyncio.current_task().cancelling() == 0


async def test_who_ends_in_time_or_all_the_same_is_told_nothing():
    async with within(10):
        await asyncio.sleep(0)
    async with within(0.05):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            answer = "the very last moment"

    await asyncio.sleep(0.1)
    assert answer
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_others_cancel_is_cancelled_also_where_it_is_late(monkeypatch, is_late):
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 600)
    begun = asyncio.Event()

    async def work():
        async with within(0.01 if is_late else 600):
            if is_late:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            begun.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await begun.wait()
    working.cancel()

    with pytest.raises(asyncio.CancelledError):
        await working


async def test_of_two_bounds_the_one_that_is_over_says_so():
    with pytest.raises(TimeoutError):
        async with within(0.05), within(10):
            await overhear(1)

    async with within(10):
        with pytest.raises(TimeoutError):
            async with within(0.05):
                await overhear(1)
        await asyncio.sleep(0.1)
