"""Django's ASGI handler for synchronous views: a request runs in one thread from its first middleware to its last.

Django's own changes between loop and threads at every middleware, and gives each request a thread, and with it a
database connection, of its own. Here a few threads keep their connections.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.core.handlers.asgi import ASGIHandler
from django.db import close_old_connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from fl.api.streaming import CHUNK_BYTES

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16


class Handler(ASGIHandler):
    """Answers each request in a thread of a pool."""

    chunk_size = CHUNK_BYTES
    """What streams is not cut again."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        super().__init__()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await self.handle(scope, receive, send)

    def load_middleware(self, is_async: bool = False) -> None:
        """Chain the middleware as for WSGI, whatever Django asks for."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Answer in a thread, and let the loop go on meanwhile."""
        return await self.call(self.get_response, request)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of these threads, which keep their database connections."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, copy_context().run, _with_connections, partial(function, *args, **kwargs)
        )


def _with_connections(function: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return function()
    finally:
        close_old_connections()
