"""The end of tasks that would go on for as long as the process does."""

import asyncio
from collections.abc import Collection


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    running = set(tasks)
    while running:
        # More than once: a layer that is cancelled at a bad moment may raise something else instead, which whoever
        # tries again and again takes for an outage.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)
