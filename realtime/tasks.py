"""The end of what would go on for as long as the process does, also where it overhears that it is to end.

A layer may do so: `asyncio.wait_for`, through which redis-py sends, keeps a cancel for itself on Python 3.11 if what it
waits for has ended in the same moment. Then the work goes on, and its bound is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

AGAIN_SECONDS = 1.0
"""After so long who has not ended is cancelled again."""


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bound what is awaited in the block, as `asyncio.timeout` does, but cancel it until it ends.

    Raises:
        TimeoutError: it took longer, and ended when it was cancelled.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("only what a task awaits can be bounded")
    before, cancels = task.cancelling(), 0
    timer: asyncio.TimerHandle

    def cancel() -> None:
        nonlocal timer, cancels
        cancels += 1
        task.cancel()
        timer = loop.call_later(AGAIN_SECONDS, cancel)

    timer = loop.call_later(seconds, cancel)
    try:
        yield
    except asyncio.CancelledError as error:
        if cancels and task.cancelling() - cancels <= before:
            raise TimeoutError from error
        raise  # others cancelled it too
    finally:
        timer.cancel()
        for _ in range(cancels):
            task.uncancel()


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    running = set(tasks)
    while running:
        # More than once, since a layer may also raise something else instead, which whoever tries again and again takes
        # for an outage.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)


async def insist(work: Coroutine[Any, Any, None], *, seconds: float) -> None:
    """Await something that cancels a task and waits for its end.

    Where that task overhears its cancel, the work would wait for ever. So it is cancelled itself, every so many seconds
    until it ends, which goes on to whatever it waits for. That it may have left something undone is no error here:
    whoever insists looks whether it helped.
    """
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=seconds))[0]:
            working.cancel()
    finally:
        await end([working])
    if not working.cancelled():
        working.result()
