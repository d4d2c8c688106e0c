"""The channel layer of one process: it does what Channels' own does."""

import asyncio

import pytest

from realtime.memory_layer import MemoryChannelLayer


@pytest.fixture
def layer():
    return MemoryChannelLayer(capacity=3)


async def members(layer, *groups):
    channels = [await layer.new_channel(f"member{number}.") for number in range(len(groups))]
    for group, channel in zip(groups, channels, strict=True):
        await layer.group_add(group, channel)
    return channels


async def test_each_member_of_the_group_and_nobody_else_gets_a_copy_of_a_message(layer):
    first, second, other = await members(layer, "a", "a", "b")
    message = {"type": "hello", "text": "1"}

    await layer.group_send("a", message)
    message["text"] = "2"

    assert await layer.receive(first) == await layer.receive(second) == {"type": "hello", "text": "1"}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await layer.receive(other)


async def test_messages_come_in_the_order_of_sending(layer):
    (member,) = await members(layer, "a")

    for number in range(3):
        await layer.group_send("a", {"type": "count", "number": number})

    assert [(await layer.receive(member))["number"] for _ in range(3)] == [0, 1, 2]


async def test_a_member_whose_channel_is_full_goes_without_and_the_others_do_not(layer):
    slow, fast = await members(layer, "a", "a")
    for number in range(3):
        await layer.group_send("a", {"type": "count", "number": number})
        assert (await layer.receive(fast))["number"] == number

    await layer.group_send("a", {"type": "count", "number": 3})

    assert (await layer.receive(fast))["number"] == 3
    assert [(await layer.receive(slow))["number"] for _ in range(3)] == [0, 1, 2]


async def test_a_group_without_members_is_no_error(layer):
    await layer.group_send("nobody", {"type": "hello"})


async def test_what_nobody_fetches_expires():
    layer = MemoryChannelLayer(expiry=-1)
    (member,) = await members(layer, "a")
    await layer.group_send("a", {"type": "hello"})

    layer._clean_at = 0.0
    await layer.group_send("b", {"type": "hello"})

    assert member not in layer.channels
    assert member not in layer.groups["a"]
