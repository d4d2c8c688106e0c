"""The border between the loop and the database: short queries, in threads of their own, and nowhere else.

The threads are not those of the HTTP views, and there are several, so that a slow query of one connection delays
neither another nor the frames that are on their way.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
_threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="realtime-database")


async def query(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call synchronous code that uses the database, and return what it returns."""
    call = database_sync_to_async(function, thread_sensitive=False, executor=_threads)
    return await call(*args, **kwargs)
