"""This process's memberships in the channel layer: a few channels that each receive a message once for all connections.

The layer is the fast path and no more: it may lose messages, forget members, or be away. A channel outlives all that:
it backs off, joins again, and tells its owner that something may have been missed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from realtime.messages import LayerMessage
from realtime.publishing import channel_layer

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 5.0


class LayerChannel:
    """One channel of the layer, in as many groups as have local members."""

    def __init__(
        self,
        name: str,
        *,
        receive: Callable[[LayerMessage], Awaitable[None]],
        missed: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._receive = receive
        self._missed = missed
        self._groups: set[str] = set()
        self._channel = ""
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def join(self, group: str) -> None:
        """Become a member of a group; where the layer is away, as soon as it is back."""
        async with self._turn:
            self._groups.add(group)
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name=f"layer channel {self._name}")
            if self._channel:
                await self._attempt("join", group)
                return
        await self._open()

    async def leave(self, group: str) -> None:
        """Leave a group."""
        async with self._turn:
            self._groups.discard(group)
            if self._channel:
                await self._attempt("leave", group)

    async def rejoin(self) -> None:
        """Join all groups once more: layers forget members after a day, or when they restart."""
        async with self._turn:
            for group in sorted(self._groups):
                if self._channel:
                    await self._attempt("join", group)

    async def stop(self) -> None:
        """Leave all groups and receive no more."""
        for group in sorted(self._groups):
            await self.leave(group)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            self._channel = ""

    async def _attempt(self, move: str, group: str) -> None:
        layer = channel_layer()
        try:
            if move == "join":
                await layer.group_add(group, self._channel)
            else:
                await layer.group_discard(group, self._channel)
        except Exception as error:
            # The receive loop notices too, and joins again; until then the log is polled.
            logger.warning("the channel layer did not let %s %s %s: %s", self._name, move, group, error)

    async def _open(self) -> None:
        async with self._turn:
            if self._channel:
                return
            layer = channel_layer()
            try:
                self._channel = await layer.new_channel(f"hub.{self._name}.")
            except Exception as error:
                logger.warning("the channel layer gives no channel to %s: %s", self._name, error)
                return
            for group in sorted(self._groups):
                await self._attempt("join", group)

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                if not self._channel:
                    await self._open()
                if self._channel:
                    message = await channel_layer().receive(self._channel)
                    pause = 0.1
                    await self._handle(message)
                    continue
            except Exception as error:
                logger.warning("the channel layer failed for %s: %s: %s", self._name, type(error).__name__, error)
                self._channel = ""
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._missed()

    async def _handle(self, message: LayerMessage) -> None:
        try:
            await self._receive(message)
        except Exception:
            # A message that cannot be read must not end the channel for all others; durable events are in the log.
            logger.exception("a message to %s could not be handled", self._name)
