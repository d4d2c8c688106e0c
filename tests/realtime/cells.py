"""Live servers of each kind on each layer, scaled so that minutes become seconds; and devices down to bytes."""

import json
import socket
import threading
from itertools import product

import pytest
from django.conf import settings
from django.db import connection

from edge.protocol.server import decode_frame
from tests.realtime.devices import answer_to, hello_of
from tests.realtime.raw import RawClient
from tests.realtime.servers import OURS, start_server

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
LAYERS = ["memory", "redis"]
CELLS = list(product(OURS, LAYERS))
each_cell = pytest.mark.parametrize("cell", CELLS, ids=["-".join(cell) for cell in CELLS], indirect=True)
HEARTBEAT_SECONDS = 1.0
SCALED = {
    "QFLARE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "QFLARE_LEASE_SECONDS": "3",
    "QFLARE_PRESENCE_GRACE_SECONDS": "2",
    "QFLARE_PING_SECONDS": "1.5",
    "QFLARE_PONG_SECONDS": "0.8",
    "QFLARE_RECHECK_SECONDS": "0.3",
    "QFLARE_POLL_SECONDS": "0.1",
    "QFLARE_CLOCK_SECONDS": "0.2",
    "QFLARE_STATISTICS_SECONDS": "0.2",
}


class Cell:
    """One kind of server on one layer: `cell.start(name, QFLARE_…="…")` starts one more over the same database."""

    def __init__(self, kind, redis_url, folder):
        self.kind, self.redis_url, self.folder = kind, redis_url, folder
        self.servers = []

    def start(self, name="anna", **changes):
        environment = {**SCALED, "REDIS_URL": self.redis_url, "QFLARE_SECRET_KEY": settings.SECRET_KEY, **changes}
        database = connection.settings_dict["NAME"]
        server = start_server(self.folder / name, database=database, kind=self.kind, environment=environment)
        self.servers.append(server)
        return server

    def stop(self):
        """Kill what still runs; no log may tell of an exception that nobody caught."""
        for server in self.servers:
            server.kill()
        for server in self.servers:
            assert "Traceback" not in server.log
            assert "Unhandled" not in server.log


class RawDevice:
    """A device that says only what it is told to say: not even a heartbeat."""

    def __init__(self, port, participant, *, headers=()):
        self.client = RawClient(port, "/ws/clients", headers=headers)
        hello = hello_of(participant)
        self.client.send(hello)
        challenge = self.client.text()
        assert decode_frame(challenge).event == "challenge"
        self.client.send(answer_to(challenge, hello, participant.key))
        self.welcome = json.loads(self.client.text())

    @property
    def connection_id(self):
        return self.welcome["data"]["connection_id"]

    def beat(self):
        self.client.send('{"type":"heartbeat"}')


class Beating:
    """Lets devices say that they are there, as long as the block lasts; one that is gone is passed over."""

    def __init__(self, *devices):
        self.devices = list(devices)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def _beat(self):
        while not self._ended.wait(HEARTBEAT_SECONDS / 2):
            for device in list(self.devices):
                try:
                    device.beat()
                except OSError:
                    self.devices.remove(device)


class Freezer:
    """A way to a server that can freeze: both ends stay open, and nothing gets through any more, not even an end."""

    def __init__(self, port):
        self._target = port
        self._frozen = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        self._frozen.set()

    def close(self):
        for one in self._sockets:
            one.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        while True:
            try:
                data = source.recv(65536)
                if self._frozen.is_set():
                    return
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                return
