"""Whether the channel layer carries: each process says something to itself every few seconds, and listens for it.

Layers do not tell when they are away. One may take what is sent while nobody hears it: a subscription ended and is not
yet there again, its connection is dead though both ends think it open, or Redis has forgotten who belongs to a group.
What is heard again is proof of all that a message passes. The cost is one message to nobody else each poll.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings

from realtime.hub import Hub
from realtime.layer import LAYER_IS_AWAY, LayerChannel
from realtime.messages import LayerMessage, probe_message
from realtime.publishing import channel_layer, send_at_once
from realtime.tasks import insist, within

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.25
"""How long the first probe is listened for, and the pause before the next one."""
HEALTH_SECONDS = 1.0
"""How long somebody who asks how the layer is waits for the answer."""
CALM_TURNS = 2
"""So often in a row the layer must carry before an outage is over: other processes may be about to notice it."""


class Listener(Protocol):
    """Who is told how the layer is."""

    async def layer_is_away(self, why: str) -> None:
        """Take note that the layer is away; what this raises is tried again."""

    async def layer_is_back(self) -> bool:
        """Take note that the layer carries; say whether that was all, or it is to be said again."""


@dataclass
class _Finding:
    """What came of some probes.

    Attributes:
        is_heard: one of them came back.
        is_sent: the layer took one.
        why: the newest error.
    """

    is_heard: bool = False
    is_sent: bool = False
    why: str = "what is sent is not heard"


class Echo:
    """What this process says to itself over the layer."""

    def __init__(self) -> None:
        self.channel = LayerChannel("watch", receive=self._hear, missed=_nothing)
        self._group = f"watch.{secrets.token_hex(8)}"
        self._said = 0
        self._heard = 0
        self._news = asyncio.Condition()

    async def listen(self, seconds: float, missed: Callable[[], Awaitable[None]] | None = None) -> _Finding:
        """Say something again and again, in longer and longer pauses, until it is heard or this time is over.

        Pauses are counted, not the clock: a loop that stood still has not listened.

        Args:
            missed: is awaited after each time that something was sent and not heard.
        """
        finding = _Finding()
        await self.channel.join(self._group)
        pause = PAUSE_SECONDS
        while seconds > 0:
            pause = min(pause, seconds)
            if await self._say(finding, pause):
                finding.is_heard = True
                break
            seconds, pause = seconds - pause, 2 * pause
            if finding.is_sent and missed is not None:
                await missed()
        return finding

    async def _say(self, finding: _Finding, seconds: float) -> bool:
        self._said += 1
        number = self._said
        try:
            async with within(seconds):
                await send_at_once(self._group, probe_message(self._group, number))
                finding.is_sent = True
                async with self._news:
                    await self._news.wait_for(lambda: self._heard >= number)
        except TimeoutError:
            return False
        except LAYER_IS_AWAY as error:
            finding.why = f"{type(error).__name__}: {error}"
            await asyncio.sleep(seconds)
            return False
        return True

    async def _hear(self, messages: list[LayerMessage]) -> None:
        async with self._news:
            self._heard = max(self._heard, *(message["number"] for message in messages))
            self._news.notify_all()


class LayerWatch:
    """Looks every few seconds whether the layer carries, mends what can be mended, and tells of outages."""

    def __init__(self, hub: Hub, listener: Listener) -> None:
        self._hub = hub
        self._listener = listener
        self._echo = Echo()
        self._is_away = False
        self._is_told_away = True
        self._is_told_back = False
        self._calm = 0

    async def look(self) -> None:
        """See whether the layer carries, and tell of a change."""
        before = self._hub.received
        finding = await self._echo.listen(settings.QFLARE_LAYER_PATIENCE_SECONDS, self._rejoin)
        if finding.is_heard:
            await self._take_well()
        elif self._hub.received == before:
            await self._take_ill(finding)
        # Else it carries so much that what was said waits behind it.

    async def carries(self) -> bool:
        """Say whether the layer carries now; at once where it is known that it does not."""
        return not self._is_away and (await self._echo.listen(HEALTH_SECONDS)).is_heard

    async def stop(self) -> None:
        """Listen no more."""
        await self._echo.channel.stop()

    async def _rejoin(self) -> None:
        # Redis may have forgotten who belongs to a group; where it has not, this changes nothing.
        await self._echo.channel.rejoin()
        await self._hub.rejoin()

    async def _take_ill(self, finding: _Finding) -> None:
        self._calm = 0
        if not self._is_away:
            self._is_away, self._is_told_away = True, False
            logger.warning("the channel layer is away, events come by the log: %s", finding.why)
        if finding.is_sent and isinstance(channel_layer(), RedisPubSubChannelLayer):
            # It takes what is sent, so it is the subscription that is dead; on a connection of its own it lives again.
            await insist(channel_layer().flush(), seconds=settings.QFLARE_LAYER_MOVE_SECONDS)
            await self._echo.channel.begin_anew()
            await self._hub.begin_anew()
        if not self._is_told_away:
            await self._listener.layer_is_away(finding.why)
            self._is_told_away, self._is_told_back = True, False

    async def _take_well(self) -> None:
        self._calm += 1
        if self._is_away:
            self._is_away = False
            logger.warning("the channel layer is back")
        # Once at the start too: who told of an outage may have ended before it did.
        if not self._is_told_back and self._calm >= CALM_TURNS:
            self._is_told_back = await self._listener.layer_is_back()


async def _nothing() -> None:
    """Probes that were missed are missed."""
