"""The road onto the layer: from any thread, in order, without anybody waiting, whatever becomes of the layer."""

import ast
import asyncio
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from channels.layers import InMemoryChannelLayer, channel_layers
from django.conf import settings

from realtime import publishing
from realtime.messages import shortened
from realtime.publishing import MESSAGES_AT_ONCE, own_loop, publish
from tests.realtime.sockets import eventually
from tests.realtime.turns import Turns

ROOT = Path(__file__).parent.parent.parent


class Layer(InMemoryChannelLayer):
    """A layer that notes what was sent, and on which thread."""

    def __init__(self):
        super().__init__()
        self.sent = []
        self.is_away = False
        self.refused = 0
        self.arrived = threading.Event()

    async def group_send(self, group, message):
        if self.is_away:
            self.refused += 1
            raise ConnectionError("the layer is away")
        self.sent.append((group, message["n"], threading.current_thread().name))
        self.arrived.set()


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr(publishing, "_outage", publishing._Outage())  # as in a process that has met none
    layer = Layer()
    channel_layers.set("default", layer)
    return layer


def numbers(start, stop):
    return [("dashboard", {"type": "x", "n": n}) for n in range(start, stop)]


def test_a_process_without_a_loop_sends_from_a_short_lived_one(layer):
    publish(numbers(0, 3))

    assert [n for _, n, _ in layer.sent] == [0, 1, 2]


def test_a_process_without_a_loop_says_once_that_the_layer_is_away_and_again_when_it_went_anew(layer, caplog):
    for outage in (1, 2):
        layer.is_away = True
        for n in range(5):
            publish(numbers(n, n + 1))
        assert caplog.text.count("cannot be sent to") == outage
        layer.is_away = False
        publish(numbers(5, 6))

    assert [n for _, n, _ in layer.sent] == [5, 5]


def test_a_process_that_publishes_much_keeps_a_loop_in_a_thread(layer):
    with own_loop():
        publish(numbers(0, 3))
        assert layer.arrived.wait(30)

    assert {thread for _, _, thread in layer.sent} == {"publishing"}


async def test_what_threads_publish_is_sent_from_the_servers_loop_in_each_ones_order(layer):
    publishing.use_loop(asyncio.get_running_loop())

    def publish_all(start):
        for n in range(start, start + 200):
            publish([("dashboard", {"type": "x", "n": n})])

    await asyncio.gather(*[asyncio.to_thread(publish_all, start) for start in (0, 1000, 2000)])
    await eventually(lambda: len(layer.sent) == 600)

    assert {thread for _, _, thread in layer.sent} == {threading.current_thread().name}
    for start in (0, 1000, 2000):
        own = [n for _, n, _ in layer.sent if start <= n < start + 1000]
        assert own == sorted(own)


async def test_the_loop_is_called_once_for_all_that_is_published_until_it_comes(layer, monkeypatch):
    loop, calls = asyncio.get_running_loop(), []
    publishing.use_loop(loop)
    call = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (calls.append(args), call(*args)))

    for turn in (1, 2):
        for n in range(100):
            publish(numbers(n, n + 1))
        assert len(calls) == turn
        await eventually(lambda turn=turn: len(layer.sent) == 100 * turn)

    assert [n for _, n, _ in layer.sent] == [*range(100), *range(100)]


async def test_a_burst_onto_a_layer_that_never_waits_gives_the_loop_its_turns(layer):
    publishing.use_loop(asyncio.get_running_loop())

    async with Turns(lambda: len(layer.sent)) as turns:
        publish(numbers(0, 1000))
        await eventually(lambda: len(layer.sent) == 1000)

    assert max(later - sent for sent, later in pairwise(turns.seen)) <= MESSAGES_AT_ONCE


async def test_a_layer_that_is_away_is_complained_of_once_and_used_again_when_it_is_back(layer, caplog):
    publishing.use_loop(asyncio.get_running_loop())
    layer.is_away = True
    publish(numbers(0, 50))
    await eventually(lambda: layer.refused == 50)
    layer.is_away = False
    publish(numbers(50, 52))
    await eventually(lambda: len(layer.sent) == 2)

    assert [n for _, n, _ in layer.sent] == [50, 51]
    assert caplog.text.count("cannot be sent to") == 1


async def test_what_waits_for_a_slow_layer_is_bounded(layer, caplog):
    publishing.use_loop(asyncio.get_running_loop())
    publish(numbers(0, settings.QFLARE_LAYER_WAITING + 500))
    await eventually(lambda: len(layer.sent) >= settings.QFLARE_LAYER_WAITING)

    assert len(layer.sent) == settings.QFLARE_LAYER_WAITING
    assert "500 messages were not sent" in caplog.text


def event(group, stream, seq):
    return group, {"type": "qflare.event", "stream": stream, "seq": seq}


def tick(group, key, number):
    return group, {"type": "qflare.event", "stream": "run:1", "key": key, "number": number}


def test_of_each_stream_and_key_the_newest_stands_for_those_before_it_in_its_group():
    ending = "dashboard", {"type": "qflare.close"}

    assert shortened(
        [
            event("dashboard", "system", 1),
            event("admin", "system", 1),
            tick("dashboard", "a", 1),
            ending,
            event("dashboard", "run:1", 7),
            tick("dashboard", "b", 2),
            event("dashboard", "system", 2),
            ending,
            tick("dashboard", "a", 3),
        ]
    ) == [
        event("admin", "system", 1),
        ending,
        event("dashboard", "run:1", 7),
        tick("dashboard", "b", 2),
        event("dashboard", "system", 2),
        ending,
        tick("dashboard", "a", 3),
    ]


async def test_of_a_burst_that_the_layer_does_not_keep_up_with_the_newest_is_sent(layer, settings):
    settings.QFLARE_LAYER_WAITING = 100
    publishing.use_loop(asyncio.get_running_loop())

    publish(
        [(group, {**message, "n": message["seq"]}) for group, message in (event("a", "system", n) for n in range(5000))]
    )
    await eventually(lambda: layer.sent)

    assert [n for _, n, _ in layer.sent] == [4999]


def test_a_layer_that_is_away_does_not_disturb_a_shell(layer, caplog):
    layer.is_away = True

    publish(numbers(0, 3))

    assert "events will be late" in caplog.text


def test_group_send_is_called_nowhere_else():
    callers = []
    for package in ("qflare", "realtime", "fl", "edge"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            if any(isinstance(node, ast.Attribute) and node.attr == "group_send" for node in ast.walk(tree)):
                callers.append(path.relative_to(ROOT).as_posix())

    assert callers == ["realtime/publishing.py"]
