"""The watch over the channel layer: an outage is noticed however silent it is, told once, and what can be mended is."""

import asyncio
import socket
import threading
import time

import pytest
from channels.layers import channel_layers
from channels_redis.pubsub import RedisSingleShardConnection
from redis.asyncio import Redis

from fl.models import Event
from realtime.health import health, layer
from realtime.process import this_process
from realtime.publishing import channel_layer, use_loop
from tests.realtime.acts import note, record
from tests.realtime.layers import CORE, PUBSUB
from tests.realtime.sockets import Socket


class Way:
    """A way to Redis on which connections can fall silent: both ends stay open, and new ones get through."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._silent = set()
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def silence(self):
        """Let nothing through any more on the connections that are open now."""
        self._silent |= set(range(len(self._pairs)))

    def close(self):
        self._listener.close()
        for near, far in self._pairs:
            near.close()
            far.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink, len(self._pairs) - 1), daemon=True).start()

    def _carry(self, source, sink, number):
        while True:
            try:
                data = source.recv(65536)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if number not in self._silent:
                    sink.sendall(data)
            except OSError:
                return


class Overhearing:
    """Lets receivers of Channels' layer overhear so many cancels: they go on as if nothing had been said."""

    def __init__(self, monkeypatch):
        self.left = 0
        receive = RedisSingleShardConnection._do_receiving

        async def overhear(shard):
            while True:
                try:
                    return await receive(shard)
                except asyncio.CancelledError:
                    self.left -= 1
                    if self.left < 0:
                        raise

        monkeypatch.setattr(RedisSingleShardConnection, "_do_receiving", overhear)


@pytest.fixture
def overhearing(monkeypatch):
    overhearing = Overhearing(monkeypatch)
    yield overhearing
    overhearing.left = 0


@pytest.fixture
def impatient(settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_POLL_SECONDS = 0.1
    settings.QFLARE_LAYER_PATIENCE_SECONDS = 0.6
    settings.QFLARE_LAYER_PAUSE_SECONDS = 0.2


@pytest.fixture
async def dashboard(impatient, redis_layer, loop):
    """Somebody who looks on, so that the process and its watch run."""
    dashboard = await Socket("/ws/dashboard").connect()
    await dashboard.opened()
    await this_process().watch.look()
    yield dashboard
    await dashboard.leave()


async def codes():
    """Return what was told of the layer so far, in order."""

    def read():
        events = Event.objects.filter(stream="system", event="error_notification").order_by("seq")
        return [code for event in events for code in ("layer_away", "layer_back") if f'"{code}"' in event.data]

    return await asyncio.to_thread(read)


async def hears(dashboard, title):
    """Record something and wait until it is told."""
    await record("system", note(title))
    await dashboard.until("error_notification", title=title)


# ── what is noticed and told ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("redis_layer", [PUBSUB, CORE], indirect=True)
async def test_people_are_told_once_that_redis_is_away_and_once_that_it_is_back(dashboard, redis_layer, caplog):
    redis_layer.stop()

    await dashboard.until("error_notification", code="layer_away")
    for number in range(5):
        await hears(dashboard, f"meanwhile {number}")
        await this_process().watch.look()
    redis_layer.start()

    await dashboard.until("error_notification", code="layer_back")
    await hears(dashboard, "afterwards")
    assert await codes() == ["layer_away", "layer_back"]
    said = [record.message for record in caplog.records if record.name == "realtime.watch"]
    assert len(said) == 2


async def test_each_outage_is_told(dashboard, redis_layer):
    for _ in range(2):
        redis_layer.stop()
        await dashboard.until("error_notification", code="layer_away")
        redis_layer.start()
        await dashboard.until("error_notification", code="layer_back")

    assert await codes() == ["layer_away", "layer_back"] * 2


async def test_a_restart_that_takes_less_than_the_patience_is_not_told(dashboard, redis_layer, settings):
    settings.QFLARE_LAYER_PATIENCE_SECONDS = 20
    redis_layer.stop()
    redis_layer.start()

    assert not this_process().watch._is_away
    await this_process().watch.look()

    assert await codes() == []


@pytest.mark.parametrize("overheard", [0, 2])
async def test_a_subscription_that_fell_silent_is_noticed_and_made_anew(
    overhearing, impatient, redis_server, settings, loop, overheard
):
    """Also where the receiver overhears its cancel: Channels' layer waits for its end, and lets nobody send."""
    settings.QFLARE_LAYER_MOVE_SECONDS = 0.2
    way = Way(redis_server.port)
    hosts = [{"address": way.url, "socket_timeout": 0.3, "socket_keepalive": False}]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": hosts}}}
    channel_layers.backends = {}
    dashboard = await Socket("/ws/dashboard").connect()
    await dashboard.opened()
    await this_process().watch.look()
    before = dict(channel_layer().channels)

    overhearing.left = overheard
    way.silence()

    await dashboard.until("error_notification", code="layer_away")
    await dashboard.until("error_notification", code="layer_back")
    # By the layer, not by the log:
    for task in [task for task in this_process()._clockwork if ": poll" in task.get_name()]:
        task.cancel()
    await hears(dashboard, "on a connection of its own")
    assert not before.keys() & channel_layer().channels.keys()
    await dashboard.leave()
    await this_process().stop()
    await channel_layer().flush()
    channel_layers.backends = {}
    way.close()


async def test_a_probe_that_overhears_its_end_and_is_never_heard_does_not_hold_up_the_watch(dashboard, monkeypatch):
    """As redis-py's may, while it opens a connection to a Redis that has just come back."""
    publish, overheard = RedisSingleShardConnection.publish, []

    async def overhear(shard, channel, message):
        if overheard:
            return await publish(shard, channel, message)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            overheard.append(channel)

    monkeypatch.setattr(RedisSingleShardConnection, "publish", overhear)

    async with asyncio.timeout(30):
        await this_process().watch.look()

    assert overheard
    assert await this_process().watch.carries()


async def test_a_loop_that_stood_still_is_no_outage(dashboard, settings):
    settings.QFLARE_LAYER_PATIENCE_SECONDS = 1
    looking = asyncio.create_task(this_process().watch.look())
    await asyncio.sleep(0)

    asyncio.get_running_loop().call_soon(time.sleep, 1.5)

    await looking
    assert await codes() == []


@pytest.mark.parametrize("redis_layer", [CORE], indirect=True)
async def test_groups_that_redis_forgot_are_joined_again_without_a_word_to_people(dashboard, redis_layer, settings):
    settings.QFLARE_LAYER_PATIENCE_SECONDS = 20
    async with Redis.from_url(redis_layer.url) as redis:
        await redis.flushall()

        await this_process().watch.look()

        assert await redis.zcard("asgi:group:dashboard") == 1
    assert await codes() == []


# ── health ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_health_is_not_taken_in_by_a_layer_that_takes_everything_and_tells_nothing(
    dashboard, redis_layer, settings, caplog
):
    settings.QFLARE_LAYER_PATIENCE_SECONDS = 60
    assert (await asyncio.to_thread(health)).layer == "ok"

    # What channels_redis does not notice itself: the task that receives has died.
    for shard in channel_layer()._shards:
        shard._receive_task.cancel()
    caplog.clear()

    assert (await asyncio.to_thread(health)).layer == "away"


async def test_while_redis_is_away_health_says_so_and_the_log_says_it_once(dashboard, redis_layer, caplog):
    redis_layer.stop()
    await dashboard.until("error_notification", code="layer_away")
    caplog.clear()

    for _ in range(5):
        assert (await asyncio.to_thread(health)).layer == "away"

    assert [record for record in caplog.records if record.name.startswith("realtime.")] == []
    redis_layer.start()
    await dashboard.until("error_notification", code="layer_back")
    assert (await asyncio.to_thread(health)).layer == "ok"


@pytest.mark.filterwarnings("ignore:coroutine '_carries' was never awaited")
def test_who_asks_how_the_layer_is_does_not_wait_for_a_loop_that_ends(redis_layer):
    loop, held, asked = asyncio.new_event_loop(), threading.Event(), threading.Event()
    loop.call_soon(lambda: (held.set(), asked.wait(), loop.stop()))
    use_loop(loop)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    held.wait()

    said = layer()

    asked.set()
    thread.join()
    loop.close()
    assert said == "away"
