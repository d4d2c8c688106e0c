"""Devices down to bytes, and a way to a server that can freeze."""

import json
import socket
import threading

from edge.protocol.server import decode_frame
from tests.realtime.devices import answer_to, hello_of
from tests.realtime.raw import RawClient
from tests.scenarios.stand import HEARTBEAT_SECONDS


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
