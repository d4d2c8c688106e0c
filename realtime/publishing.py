"""The road onto the channel layer: from any thread of any process, in order, without anybody waiting for it.

A server process has one loop, on which one task sends. Layers are no use across loops: an in-memory queue filled from a
foreign thread wakes nobody. So what happens in threads is handed over with `call_soon_threadsafe`. A process without a
loop of its own, such as a management command or a shell, sends from a short-lived one. `group_send` is called nowhere
else.
"""

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings

from realtime.messages import Addressed, LayerMessage, shortened
from realtime.tasks import within

logger = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 100
"""After so many the loop has its turn: a layer in memory never waits for anything."""


class _Outage:
    """Says once each time the layer breaks that it cannot be sent to: there would be a line for each event."""

    def __init__(self) -> None:
        self._is_on = False

    def goes_on(self, what: str) -> None:
        if not self._is_on:
            logger.warning("the channel layer cannot be sent to, events will be late: %s", what)
        self._is_on = True

    def is_over(self) -> None:
        self._is_on = False


class _Road:
    """The way onto the layer from one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._handed_over: deque[Addressed] = deque()
        self._is_called = False
        self._waiting: deque[Addressed] = deque()
        self._task: asyncio.Task[None] | None = None
        self._outage = _Outage()

    def hand_over(self, messages: Sequence[Addressed]) -> bool:
        """Put messages on the road from any thread; say False where the loop is closed.

        A transaction tells many events, and a loop that is called for each would take its turn, and the thread's, each
        time: it is called once for all that is handed over until it comes.
        """
        self._handed_over.extend(messages)
        if self._is_called:
            return True
        self._is_called = True
        try:
            self.loop.call_soon_threadsafe(self._take_over)
        except RuntimeError:
            # The server has ended: what others handed over meanwhile is in the log, as all is that must not be lost.
            self._is_called = False
            self._handed_over.clear()
            return False
        return True

    def _take_over(self) -> None:
        # First: what is handed over from now on calls again.
        self._is_called = False
        messages = []
        while self._handed_over:
            messages.append(self._handed_over.popleft())
        self.put(messages)

    def put(self, messages: Sequence[Addressed]) -> None:
        """Put messages on the road, from the loop itself."""
        self._waiting.extend(messages)
        if len(self._waiting) > settings.QFLARE_LAYER_WAITING:
            self._shorten(settings.QFLARE_LAYER_WAITING)
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._send_all(), name="road onto the channel layer")

    def _shorten(self, most: int) -> None:
        """Send less than what waits: the layer does not keep up, and a page of the log is read faster than it comes."""
        kept = shortened(self._waiting)
        if len(kept) > most:
            self._outage.goes_on(f"{len(kept) - most} messages were not sent: {most} wait already")
        self._waiting = deque(kept[:most])

    async def _send_all(self) -> None:
        for sent in itertools.count(1):
            if not self._waiting:
                return
            group, message = self._waiting.popleft()
            try:
                await send_at_once(group, message)
                self._outage.is_over()
            except Exception as error:
                self._outage.goes_on(f"{type(error).__name__}: {error}")
            if sent % MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)


_road: _Road | None = None
_outage = _Outage()
"""What a process without a loop has met."""
_lock = threading.Lock()


def channel_layer() -> Any:
    """Return the channel layer; its methods differ from layer to layer more than the stubs know."""
    return get_channel_layer()


def use_loop(loop: asyncio.AbstractEventLoop) -> _Road:
    """Send from this loop from now on; a server calls it when its loop runs."""
    global _road
    with _lock:
        if _road is None or _road.loop is not loop:
            _road = _Road(loop)
        return _road


def publish(messages: Sequence[Addressed]) -> None:
    """Send messages to groups, in order; returns at once where the process has a loop for it."""
    road = _running_road()
    if road is None or not road.hand_over(messages):
        _send_from_here(messages)


def call_on_loop(function: Callable[[], None]) -> bool:
    """Have the process's loop call something soon; say False where there is none."""
    road = _running_road()
    if road is None:
        return False
    try:
        road.loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False  # the loop was closed at this very moment
    return True


def loop_of_process() -> asyncio.AbstractEventLoop | None:
    """Return the loop that messages are sent from, if there is one."""
    road = _running_road()
    return road.loop if road else None


async def send_at_once(group: str, message: LayerMessage) -> None:
    """Send one message from the running loop, past those that wait, and raise what the layer raises."""
    async with within(settings.QFLARE_LAYER_SEND_SECONDS):
        await channel_layer().group_send(group, message)


@contextmanager
def own_loop() -> Iterator[None]:
    """Keep a loop in a thread while the block runs: for a process that publishes much and serves nobody."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="publishing", daemon=True)
    thread.start()
    use_loop(loop)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _running_road() -> _Road | None:
    road = _road
    return road if road is not None and road.loop.is_running() else None


def _send_from_here(messages: Sequence[Addressed]) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_send_now(messages))
    else:
        use_loop(loop).put(messages)


async def _send_now(messages: Sequence[Addressed]) -> None:
    for group, message in messages:
        try:
            await send_at_once(group, message)
            _outage.is_over()
        except Exception as error:
            # The event is in the log, where every hub looks within seconds.
            _outage.goes_on(f"{type(error).__name__}: {error}")
            return
