"""The end of tasks that would go on for as long as the process does."""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    running = set(tasks)
    while running:
        # More than once: a layer that is cancelled at a bad moment may raise something else instead, which whoever
        # tries again and again takes for an outage.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)


async def insist(work: Coroutine[Any, Any, None], *, seconds: float) -> None:
    """Await something that cancels a task and waits for its end.

    Where that task overhears its cancel, as `end` says, the work would wait for ever. So it is cancelled itself, every
    so many seconds until it ends, which goes on to whatever it waits for. That it may have left something undone is no
    error here: whoever insists looks whether it helped.
    """
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=seconds))[0]:
            working.cancel()
    finally:
        await end([working])
    if not working.cancelled():
        working.result()
