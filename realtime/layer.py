"""This process's memberships in the channel layer: a few channels that each receive a message once for all connections.

The layer is the fast path and no more: it may lose messages, forget members, or be away. A channel outlives all that:
it knows which groups it wants to be in, brings that about as soon as the layer lets it, and tells its owner that
something may have been missed. Nobody who joins waits long for a layer that is away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from django.conf import settings
from redis.exceptions import RedisError

from realtime.messages import LayerMessage
from realtime.publishing import channel_layer
from realtime.tasks import end, within

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
WAITING = 100
"""How many messages wait here while earlier ones are handled; more are left to the layer."""
UNREADABLE_AT_ONCE = 100
"""After so many messages in a row that cannot be read it is rather the layer that is broken."""
LAYER_IS_AWAY = (RedisError, OSError)
"""What a layer raises that cannot be reached; whatever else it raises is about one message."""


class LayerChannel:
    """One channel of the layer, in as many groups as have local members."""

    def __init__(
        self,
        name: str,
        *,
        receive: Callable[[list[LayerMessage]], Awaitable[None]],
        missed: Callable[[], Awaitable[None]],
    ) -> None:
        """Make a channel that is in no group yet.

        Args:
            receive: handles messages, all that have come since it began with those before.
            missed: is called when messages may have been lost.
        """
        self.received = 0
        """How many messages it has received."""
        self._name = name
        self._receive = receive
        self._missed = missed
        self._wanted: set[str] = set()
        self._joined: set[str] = set()
        self._channel = ""
        self._is_broken = False
        self._broke = asyncio.Event()
        self._opened = asyncio.Event()
        self._unreadable = 0
        self._inbox = asyncio.Queue[LayerMessage](WAITING)
        self._receiving: asyncio.Task[None] | None = None
        self._handling: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def join(self, group: str) -> None:
        """Become a member of a group; where the layer is away, as soon as it is back."""
        self._wanted.add(group)
        if self._mending is None:
            self._mending = asyncio.create_task(self._mend(), name=f"layer channel {self._name}: mend")
            self._handling = asyncio.create_task(self._handle_all(), name=f"layer channel {self._name}: handle")
            self._receiving = self._listen()
        await self._settle_unless_broken()

    async def leave(self, group: str) -> None:
        """Leave a group."""
        self._wanted.discard(group)
        await self._settle_unless_broken()

    async def rejoin(self) -> None:
        """Join all groups once more: layers forget members after a day, or when they restart."""
        await self._settle_unless_broken(anew=True)

    async def begin_anew(self) -> None:
        """Take another channel, since the layer has forgotten this one, and join all groups with it."""
        if self._receiving is None:
            return
        async with self._turn:
            await end([self._receiving])
            self._opened.clear()
            self._channel = ""
            self._joined.clear()
            self._receiving = self._listen()
        self._is_broken = True
        self._broke.set()

    async def stop(self) -> None:
        """Leave all groups and receive no more."""
        self._wanted.clear()
        await self._settle_unless_broken()
        await end([task for task in (self._receiving, self._handling, self._mending) if task is not None])
        self._receiving = self._handling = self._mending = None
        self._channel = ""

    # ── what is wanted ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _settle_unless_broken(self, *, anew: bool = False) -> None:
        if self._is_broken:
            return
        async with self._turn:
            await self._settle_in_turn(anew=anew)

    async def _settle_in_turn(self, *, anew: bool) -> None:
        if self._is_broken:
            return  # whoever was before found out, so that all who waited need not do so again
        try:
            await self._settle(anew=anew)
        except Exception as error:
            self._break(error)

    async def _settle(self, *, anew: bool = False) -> None:
        """Be in the groups that are wanted, and in no others; only who has the turn may.

        Args:
            anew: join those also that were joined before.
        """
        layer = channel_layer()
        if not self._channel:
            async with within(settings.QFLARE_LAYER_MOVE_SECONDS):
                # One prefix for all: Redis' core layer reads one queue for each, and only one of them at a time.
                self._channel = await layer.new_channel("hub.")
        for group in sorted(self._wanted if anew else self._wanted - self._joined):
            async with within(settings.QFLARE_LAYER_MOVE_SECONDS):
                await layer.group_add(group, self._channel)
            self._joined.add(group)
        for group in sorted(self._joined - self._wanted):
            async with within(settings.QFLARE_LAYER_MOVE_SECONDS):
                await layer.group_discard(group, self._channel)
            self._joined.discard(group)
        self._opened.set()

    def _break(self, error: Exception) -> None:
        # Once each time it breaks; until it is mended the log is polled.
        if not self._is_broken:
            logger.warning(
                "the channel layer is away for %s, events will be late: %s: %s",
                self._name,
                type(error).__name__,
                error,
            )
        self._is_broken = True
        self._broke.set()

    async def _mend(self) -> None:
        """Try again and again, in longer and longer pauses, once something went wrong."""
        while True:
            await self._broke.wait()
            self._broke.clear()
            if not self._is_broken:
                continue  # it broke again while it was being mended
            pause = FIRST_PAUSE_SECONDS
            while self._is_broken:
                await asyncio.sleep(pause)
                pause = min(2 * pause, settings.QFLARE_LAYER_PAUSE_SECONDS)
                try:
                    async with self._turn:
                        await self._settle()
                    # Who joined while it was being mended did not wait for it.
                    self._is_broken = self._wanted != self._joined
                except Exception as error:
                    logger.debug("the channel layer is still away for %s: %s", self._name, error)
            logger.warning("the channel layer is back for %s", self._name)
            await self._missed()

    # ── what comes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._receive_all(), name=f"layer channel {self._name}: receive")

    async def _receive_all(self) -> None:
        while True:
            await self._opened.wait()
            try:
                message = await channel_layer().receive(self._channel)
            except Exception as error:
                # The channel stays: a new one beside it would fill for ever, since layers know no way to give one up.
                if isinstance(error, LAYER_IS_AWAY) or self._unreadable >= UNREADABLE_AT_ONCE:
                    self._lose(error)
                else:
                    self._pass_over(error)
                continue
            self._unreadable = 0
            self.received += 1
            await self._inbox.put(message)

    async def _handle_all(self) -> None:
        while True:
            messages = [await self._inbox.get()]
            while not self._inbox.empty():
                messages.append(self._inbox.get_nowait())
            try:
                await self._receive(messages)
            except Exception:
                # It must not end the channel for all that come after; durable events are in the log.
                logger.exception("messages to %s could not be handled", self._name)

    def _lose(self, error: Exception) -> None:
        # Some layers forget their members when they restart, so all groups are joined anew.
        self._unreadable = 0
        self._opened.clear()
        self._joined.clear()
        self._break(error)

    def _pass_over(self, error: Exception) -> None:
        # What was in it is in the log, if it must not be lost. Once for many in a row: who sends one may send more.
        if not self._unreadable:
            logger.warning("a message to %s could not be read: %s: %s", self._name, type(error).__name__, error)
        self._unreadable += 1
