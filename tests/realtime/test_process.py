"""What a process that serves sockets leaves behind when it ends: nothing."""

import asyncio
import threading

from realtime import statistics
from realtime.models import ServerProcess
from realtime.process import this_process


async def test_a_row_that_is_being_written_as_the_process_ends_is_taken_back_too(loop, settings, monkeypatch):
    settings.QFLARE_STATISTICS_SECONDS = 0.01
    begun, go_on, write = threading.Event(), threading.Event(), statistics.write

    def held(**fields):
        begun.set()
        assert go_on.wait(60)
        return write(**fields)

    monkeypatch.setattr(statistics, "write", held)
    process = this_process()
    assert await asyncio.to_thread(begun.wait, 60)

    stopping = asyncio.create_task(process.stop())
    _, waits = await asyncio.wait([stopping], timeout=0.5)
    go_on.set()
    await stopping

    assert waits, "it ended while its row was being written"
    assert not await ServerProcess.objects.aexists()
