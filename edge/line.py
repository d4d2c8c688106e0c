"""A socket for a program that waits for it: asyncio in a thread of its own, which alone reads and writes.

websockets' client for threads reads in one while another writes, and a TLS connection bears only one at a time: once in
a while both would hang. Here a program's thread asks and waits, and the loop's thread does everything, answers to pings
included. The program may have a loop of its own, as notebooks do.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect

T = TypeVar("T")

CLOSE_SECONDS = 5.0


class Line:
    """One connection at a time, one after the other; the block ends the thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._thread = threading.Thread(target=self._run, name="edge-line", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        if not self._is_here:
            self._thread.join()

    def open(self, address: str, **options: Any) -> None:
        """Connect; raise what `websockets.asyncio.client.connect` raises."""
        self._wait(self._open(address, options))

    def receive(self, seconds: float) -> str | bytes:
        """Return the next frame.

        Raises:
            TimeoutError: none came in this time.
            ConnectionClosed: the connection ended.
        """
        return self._wait(self._receive(seconds))

    def send(self, text: str) -> None:
        """Send a frame.

        Raises:
            ConnectionClosed: the connection ended.
        """
        self._wait(self._send(text))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if not self._is_here:
            self._wait(self._close())

    @property
    def _is_here(self) -> bool:
        """What is no longer needed may be collected in any thread, and so in that of the loop, which cannot wait."""
        return threading.current_thread() is self._thread

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # it was interrupted, or has ended already
            raise

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ending.wait()
        await self._close()

    async def _open(self, address: str, options: dict[str, Any]) -> None:
        self._socket = await connect(address, close_timeout=CLOSE_SECONDS, **options)

    async def _receive(self, seconds: float) -> str | bytes:
        async with asyncio.timeout(seconds):
            return await self._connection.recv()

    async def _send(self, text: str) -> None:
        await self._connection.send(text)

    async def _close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    @property
    def _connection(self) -> ClientConnection:
        if self._socket is None:
            raise RuntimeError("the line is not open")
        return self._socket
