"""A way for tests into a server's process: what happens there, and what is left there.

A thread of the server listens on a local socket, named after the process; no product code knows of it. Each line is a
command with its arguments, in JSON, and is answered by a line. Commands run in a thread of their own for each
connection, as a training thread would; modules named `acts_…` add commands of their own with `@command`.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import threading
from collections import Counter
from importlib import import_module
from itertools import chain

from django.apps import AppConfig
from django.db import connection
from django.utils import timezone

from edge.protocol.server import ErrorNotification

GIVE_UP_SECONDS = 60
COMMANDS = {}


def command(name):
    """Let tests call a function in the server: `server.ask(name, **arguments)`; it returns what JSON can say."""

    def register(function):
        COMMANDS[name] = function
        return function

    return register


def address_of(pid):
    """Return the address at which a server's process listens to its test."""
    return f"\0qflare-scenario-{pid}"


class ControlConfig(AppConfig):
    name = "tests.scenarios.control"
    label = "control"

    def ready(self):
        for module in os.environ.get("SCENARIO_ACTS", "").split():
            import_module(module)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address_of(os.getpid()))
        listener.listen()
        threading.Thread(target=_listen, args=(listener,), name="control", daemon=True).start()


def _listen(listener):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_serve, args=(peer,), name="control of one", daemon=True).start()


def _serve(peer):
    with peer, peer.makefile("rw") as lines:
        for line in lines:
            name, arguments = json.loads(line)
            lines.write(json.dumps(_answer(name, arguments)) + "\n")
            lines.flush()
    connection.close()


def _answer(name, arguments):
    try:
        return {"result": COMMANDS[name](**arguments)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


class Asking:
    """A test's end: one connection for each thread that asks."""

    def __init__(self, pid):
        self._pid = pid
        self._mine = threading.local()
        self._all = []

    def ask(self, name, **arguments):
        """Call a command in the server, and return what it returns."""
        if not hasattr(self._mine, "lines"):
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(GIVE_UP_SECONDS)
            peer.connect(address_of(self._pid))
            self._mine.lines = peer.makefile("rw")
            self._all += [self._mine.lines, peer]
        lines = self._mine.lines
        lines.write(json.dumps([name, arguments]) + "\n")
        lines.flush()
        answer = json.loads(lines.readline())
        assert "result" in answer, f"{name} in the server: {answer['error']}"
        return answer["result"]

    def close(self):
        for one in self._all:
            one.close()


# ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────────


def numbered(number, size=300):
    """Return an event that says which it is, of about so many bytes."""
    return ErrorNotification(code="scenario", severity="info", title=str(number), detail="x" * max(0, size - 200))


@command("record")
def record(stream="system", count=1, size=300, first=1):
    """Record so many events in one transaction, titled `first` and on."""
    from fl import events

    with events.transaction():
        for number in range(first, first + count):
            events.record(stream, numbered(number, size), timezone.now())


_let_go = threading.Event()


@command("hold_loop")
def hold_loop():
    """Let the server's loop stand still until `let_go_of_loop`; returns when it does."""
    stands = threading.Event()

    def stand_still():
        stands.set()
        _let_go.wait(GIVE_UP_SECONDS)

    _let_go.clear()
    _loop().call_soon_threadsafe(stand_still)
    assert stands.wait(GIVE_UP_SECONDS), "the loop never came to it"


@command("let_go_of_loop")
def let_go_of_loop():
    _let_go.set()


# ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────────────


def on_loop(function):
    """Call a function on the server's loop, where nothing changes meanwhile, and return what it returns."""

    async def call():
        return function()

    return asyncio.run_coroutine_threadsafe(call(), _loop()).result(GIVE_UP_SECONDS)


def _loop():
    from realtime.publishing import loop_of_process

    loop = loop_of_process()
    assert loop is not None, "the server has no loop yet"
    return loop


@command("warm_up")
def warm_up():
    """Let everything come to be that stays for the life of a process: the hub, and its channels on the layer."""
    from realtime.groups import Kind

    if "qflare.server" in sys.modules:
        # Who waits until nothing is left waits for Daphne's look at what has ended, which is at leisure else.
        sys.modules["qflare.server"].TURNS = 1

    async def come_and_go():
        from realtime.process import this_process

        hub = this_process().hub
        if os.environ["SCENARIO_LAYER"] != "memory":
            await this_process().watch.look()
        for group in [*Kind, "user.0"]:
            channel = hub._channel_of(group)
            await channel.join(group)
            await channel.leave(group)

    asyncio.run_coroutine_threadsafe(come_and_go(), _loop()).result(GIVE_UP_SECONDS)


@command("counts")
def counts():
    """Return how many connections there are, and how many frames wait for them."""
    return on_loop(_counts)


def _counts():
    from realtime.groups import Kind
    from realtime.process import running_process

    process = running_process()
    hub = process.hub
    connections = hub.connections()
    return {
        "connections": len(connections),
        **{kind.value: len(hub.connections(kind)) for kind in Kind},
        "queued": sum(connection.queued[0] for connection in connections),
        "behind": sum(connection.is_behind for connection in connections),
    }


@command("remains")
def remains():
    """Return what there is of all that connections bring with them, to be compared with what there was at the start."""
    gc.collect()
    return on_loop(_remains)


def _remains():
    from realtime.process import running_process

    process = running_process()
    hub = process.hub
    objects = _objects()
    members, messages = _in_the_layer()
    passing = {kind: count for kind, count in objects.items() if kind in PASSING}
    return {
        "connections": len(hub.connections()),
        "members": sum(map(len, hub._members.values())) + len(hub._groups),
        "groups": sorted(group for channel in hub._channels.values() for group in channel._wanted | channel._joined),
        "in the layer": members,
        "at the door": [len(process.door), *map(len, (process.door._by_address, process.door._by_person))],
        "people and devices": [len(process.people), len(process.devices)],
        "streams followed": len(hub._streams),
        "pages being read": len(hub.log._reading),
        "tasks": dict(sorted(_tasks().items())),
        "objects": {kind: count for kind, count in objects.items() if kind not in PASSING},
        "passing": {**passing, "messages in the layer": messages},
    }


def _in_the_layer():
    """Return how many members and messages a layer has in this process; the core one keeps them on Redis."""
    from realtime.publishing import channel_layer

    layer = channel_layer()
    if not hasattr(layer, "channels"):
        return 0, 0
    return sum(map(len, layer.groups.values())), sum(queue.qsize() for queue in layer.channels.values())


ON_REDIS = ("channels_redis", "redis/asyncio")


def _tasks():
    """Count tasks by what they do, but for those within a layer on Redis, which come and go as it reads."""
    found = Counter()
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        file = code.co_filename if code else ""
        if task is not asyncio.current_task() and not any(name in file for name in ON_REDIS):
            found[code.co_qualname if code else repr(task.get_coro())] += 1
    if os.environ["SCENARIO_LAYER"] == "core":
        # It reads by tasks that wait for a queue or a lock of asyncio's own.
        for name in ("Queue.get", "Lock.acquire"):
            found.pop(name, None)
    return found


OF_EACH_CONNECTION = {"Connection", "Socket", "Inbox", "Outlet", "Body", "Channel", "Request"}
"""Of these there is one for each that is connected; Daphne forgets some of them a little after the end."""
KEPT = {"LogEntry", "_Key"}
"""Pages of the log are kept, and when each key last ticked: a bounded number of them."""
PASSING = {"ServerProcess", "Figures", "Standing", "DeviceStanding", "StreamHead", "_Finding"}
"""What comes and goes all the time: a process tells how it is, polls heads, asks whether the layer carries, and who may
still be there. Between two such turns there is none of it."""


def _objects():
    """Count the live objects of our own classes, whoever holds them."""
    # All in one call, in which no other thread has its turn. A list of all objects in a loop of ours would keep theirs
    # alive meanwhile: a cursor just dropped, whose open statement then lets no transaction of its connection end.
    everything = chain.from_iterable(map(gc.get_objects, [None]))
    found = Counter()
    for kind, count in Counter(map(type, everything)).items():
        package = str(kind.__module__).partition(".")[0]
        if package in ("realtime", "qflare") and kind.__name__ not in KEPT:
            found[kind.__name__] += count
    found["Frame"] -= _frames_of_pages()
    return dict(sorted(found.items()))


def _frames_of_pages():
    """Return how many frames the kept pages of the log have made, which go with them."""
    from realtime.process import running_process

    pages = running_process().hub.log._kept.values()
    return sum("frame" in vars(entry) for page in pages for entry in page)
