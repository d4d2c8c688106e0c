"""A process's place in the channel layer outlives the layer, and the server says when the layer is away."""

import asyncio
import signal
from contextlib import suppress

import pytest
from django.test import Client
from redis.asyncio import Redis
from redis.exceptions import RedisError

from realtime.layer import UNREADABLE_AT_ONCE, LayerChannel
from realtime.publishing import channel_layer
from tests.realtime.layers import CORE, PUBSUB
from tests.realtime.sockets import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def member(redis_layer):
    """A channel, what it heard, and how often it may have missed something."""
    channel = LayerChannel("test", receive=_take, missed=_count)
    channel.heard, channel.missed = [], 0
    _take.channel = _count.channel = channel
    yield channel
    await channel.stop()
    await channel_layer().flush()


async def _take(messages):
    _take.channel.heard += [message["n"] for message in messages]


async def _count():
    _count.channel.missed += 1


async def send_until_heard(group, member, n):
    """Send a number to a group again and again: until a subscription is back, Redis forgets what it is sent."""
    async with asyncio.timeout(30):
        while n not in member.heard:
            with suppress(RedisError):  # the first message finds that its connection has ended
                await channel_layer().group_send(group, {"n": n})
            await asyncio.sleep(0.02)


async def test_a_group_that_was_joined_before_redis_died_is_heard_when_it_is_back(member, redis_layer):
    await member.join("a")
    await send_until_heard("a", member, 1)

    redis_layer.stop()
    redis_layer.start()

    await send_until_heard("a", member, 2)


async def test_a_group_that_is_joined_while_redis_is_away_is_joined_when_it_is_back(member, redis_layer):
    await member.join("a")
    redis_layer.stop()

    async with asyncio.timeout(10):
        for group in ("b", "c"):
            await member.join(group)
    redis_layer.start()

    await send_until_heard("b", member, 1)
    await send_until_heard("c", member, 2)
    await eventually(lambda: member.missed == 1)


@pytest.mark.parametrize("redis_layer", [CORE], indirect=True)
async def test_of_those_who_join_while_redis_hangs_nobody_waits_longer_than_the_first(member, redis_layer, settings):
    settings.QFLARE_LAYER_MOVE_SECONDS = 2
    await member.join("a")
    await send_until_heard("a", member, 1)
    redis_layer.process.send_signal(signal.SIGSTOP)
    joining = [asyncio.create_task(member.join(f"b{number}")) for number in range(4)]

    await asyncio.wait(joining, return_when=asyncio.FIRST_COMPLETED)
    _, late = await asyncio.wait(joining, timeout=1)

    redis_layer.process.send_signal(signal.SIGCONT)
    assert not late
    for number in range(4):
        await send_until_heard(f"b{number}", member, f"in b{number}")


async def test_a_channel_that_began_while_redis_was_away_comes_to_life_with_it(member, redis_layer):
    redis_layer.stop()
    await member.join("a")
    redis_layer.start()

    await send_until_heard("a", member, 1)


async def test_a_group_that_was_left_while_redis_was_away_is_heard_no_more(member, redis_layer):
    await member.join("a")
    await member.join("b")
    redis_layer.stop()
    await member.join("c")  # finds out that it is away
    await member.leave("a")
    redis_layer.start()

    await send_until_heard("c", member, 1)
    await channel_layer().group_send("a", {"n": 2})
    await send_until_heard("b", member, 3)
    assert 2 not in member.heard


async def test_a_group_that_is_left_while_all_are_joined_anew_is_heard_no_more(member):
    await member.join("a")
    await member.join("b")

    await asyncio.gather(member.join("c"), member.rejoin(), member.leave("a"))

    await send_until_heard("c", member, 1)
    await channel_layer().group_send("a", {"n": 2})
    await send_until_heard("b", member, 3)
    assert 2 not in member.heard


@pytest.mark.parametrize("redis_layer", [CORE], indirect=True)
async def test_groups_that_redis_forgot_are_heard_when_they_are_joined_anew(member, redis_layer):
    await member.join("a")
    await send_until_heard("a", member, 1)
    async with Redis.from_url(redis_layer.url) as redis:
        await redis.flushall()

        await member.rejoin()

        assert await redis.zcard("asgi:group:a") == 1
    await send_until_heard("a", member, 2)


async def test_a_message_that_cannot_be_read_is_passed_over_and_nothing_is_kept_of_it(member, redis_layer, caplog):
    await member.join("a")
    await send_until_heard("a", member, 1)
    async with Redis.from_url(redis_layer.url) as redis:
        for _ in range(3):
            await redis.publish("asgi__group__a", b"\xc1 is nothing in msgpack")
    for n in range(2, 102):
        await channel_layer().group_send("a", {"n": n})

    await eventually(lambda: 101 in member.heard)

    assert member.heard[-100:] == list(range(2, 102))
    assert [queue.qsize() for queue in channel_layer().channels.values()] == [0]
    assert caplog.text.count("could not be read") == 1


async def test_a_flood_of_what_cannot_be_read_does_not_hold_up_the_loop(member, redis_layer):
    await member.join("a")
    await send_until_heard("a", member, 1)
    async with Redis.from_url(redis_layer.url) as redis, redis.pipeline() as flood:
        for _ in range(5 * UNREADABLE_AT_ONCE):
            flood.publish("asgi__group__a", b"\xc1")
        await flood.execute()

    await send_until_heard("a", member, 2)


@pytest.mark.parametrize("redis_layer", [CORE], indirect=True)
async def test_a_message_that_cannot_be_read_is_passed_over_by_the_core_layer_too(member, redis_layer):
    await member.join("a")
    await send_until_heard("a", member, 1)
    async with Redis.from_url(redis_layer.url) as redis:
        (channel,) = await redis.zrange("asgi:group:a", 0, -1)
        queue = channel_layer().non_local_name(channel.decode())
        assert await redis.zadd(f"asgi{queue}", {b"\xc1": 1.0}) == 1

        await send_until_heard("a", member, 2)


@pytest.mark.parametrize("redis_layer", [PUBSUB, CORE], indirect=True)
async def test_several_channels_of_a_process_hear_at_the_same_time(member, redis_layer):
    heard = []

    async def take(messages):
        heard.extend(message["n"] for message in messages)

    other = LayerChannel("other", receive=take, missed=_count)
    await member.join("a")
    await send_until_heard("a", member, 1)
    await other.join("b")

    await channel_layer().group_send("b", {"n": 2})

    await eventually(lambda: heard == [2])
    await other.stop()


async def test_what_comes_while_something_is_handled_is_handled_together_afterwards(member):
    handed, goes_on = [], asyncio.Event()

    async def take(messages):
        handed.append([message["n"] for message in messages])
        await goes_on.wait()

    other = LayerChannel("other", receive=take, missed=_count)
    await other.join("b")
    while not handed:
        await channel_layer().group_send("b", {"n": 0})
        await asyncio.sleep(0.02)
    before = other.received
    for n in range(1, 6):
        await channel_layer().group_send("b", {"n": n})
    await eventually(lambda: other.received == before + 5)

    goes_on.set()

    await eventually(lambda: len(handed) == 2)
    assert handed[1][-5:] == [1, 2, 3, 4, 5]
    await other.stop()


async def test_messages_that_cannot_be_handled_are_told_of_and_end_nothing(member, caplog):
    await member.join("a")
    await send_until_heard("a", member, 1)

    await channel_layer().group_send("a", {"another": "message"})

    await send_until_heard("a", member, 2)
    assert "could not be handled" in caplog.text


async def test_a_channel_that_began_anew_hears_its_groups_and_its_old_one_is_gone(member):
    await member.join("a")
    await send_until_heard("a", member, 1)

    await channel_layer().flush()
    await member.begin_anew()

    await send_until_heard("a", member, 2)
    assert len(channel_layer().channels) == 1


def test_health_says_that_one_process_needs_no_layer():
    response = Client().get("/api/v1/health/")

    assert (response.status_code, response.json()) == (200, {"database": "ok", "layer": "in_memory"})


def test_health_says_when_redis_is_away_and_when_it_is_back(redis_layer):
    def layer():
        return Client().get("/api/v1/health/").json()["layer"]

    assert layer() == "ok"
    redis_layer.stop()
    assert layer() == "away"
    redis_layer.start()
    assert layer() == "ok"
