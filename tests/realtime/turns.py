"""Who else on the loop has a turn while something runs, and how often."""

import asyncio


class Turns:
    """Counts the turns that others on the loop get while the block runs: `number`."""

    def __init__(self, look=lambda: None):
        self.number = 0
        self.seen = []
        """What `look` returned at each of them."""
        self._look = look
        self._task = None

    async def __aenter__(self):
        self._task = asyncio.create_task(self._count())
        await asyncio.sleep(0)
        self.number = 0
        self.seen.clear()
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _count(self):
        while True:
            self.number += 1
            self.seen.append(self._look())
            await asyncio.sleep(0)
