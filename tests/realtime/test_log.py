"""The log in pages: readers share them, and what is kept is bounded in bytes, however large events are."""

import pytest

from fl.models import Stream
from realtime.limits import CHUNK_EVENTS
from realtime.log import KEPT_BYTES, LogPages
from tests.realtime.acts import note, record

PAGES = 4


async def recorded(size):
    """Record so many pages of events of this size, and return the log and its epoch."""
    for _ in range(PAGES):
        await record("system", *[note("x" * size) for _ in range(CHUNK_EVENTS)])
    return LogPages(), (await Stream.objects.aget(name="system")).epoch


async def read_through(log, epoch):
    """Read all that there is, and return the numbers."""
    seqs = []
    while page := await log.after("system", epoch, seqs[-1] if seqs else 0):
        seqs += [entry.seq for entry in page]
    return seqs


@pytest.mark.parametrize("size", [100, 10_000, 30_000])
async def test_what_is_kept_of_the_log_has_a_bound_in_bytes_or_is_one_page(loop, size):
    log, epoch = await recorded(size)

    assert await read_through(log, epoch) == list(range(1, PAGES * CHUNK_EVENTS + 1))
    kept = log.size
    assert await read_through(log, epoch) == list(range(1, PAGES * CHUNK_EVENTS + 1))

    assert 2 * CHUNK_EVENTS * size < kept < max(KEPT_BYTES, 2 * CHUNK_EVENTS * (size + 300))
    assert log.size == kept


async def test_at_the_head_only_what_is_new_is_read(loop):
    await record("system", note("1"), note("2"))
    log, epoch = LogPages(), (await Stream.objects.aget(name="system")).epoch
    before = await log.after("system", epoch, 0)
    await record("system", note("3"))

    page = await log.after("system", epoch, 0)

    assert [entry.seq for entry in page] == [1, 2, 3]
    assert page[0] is before[0] and page[1] is before[1]
    assert log.size == sum(entry.size for entry in page)
