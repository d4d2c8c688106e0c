"""A WebSocket client down to the bytes: it can send what no library would, and stop reading."""

import json
import os
import socket
import struct
from base64 import b64encode

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GIVE_UP_SECONDS = 60


open_clients = []


def drop_all():
    """Close every socket that a test has left open."""
    while open_clients:
        open_clients.pop().drop()


class Refused(Exception):
    """The upgrade was answered with another status than 101."""

    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.status = status


class RawClient:
    """One connection; frames are read one at a time, only when asked for."""

    def __init__(self, port, path, *, origin=None, headers=(), receive_buffer=None, trust=None):
        self.socket = socket.socket()
        open_clients.append(self)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(GIVE_UP_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        if trust:
            self.socket = trust.wrap_socket(self.socket, server_hostname="localhost")
        self._data = b""
        self.taken = self.given = 0
        """Bytes of frames, read and sent."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {'localhost' if trust else '127.0.0.1'}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *([f"Origin: {origin}"] if origin else []),
            *headers,
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, self._data = self._data.split(b"\r\n\r\n", 1)
        self.head = head.decode()
        status = int(self.head.split(" ", 2)[1])
        if status != 101:
            raise Refused(status)

    def send(self, payload, opcode=TEXT, *, fin=True, mask=True, reserved=0):
        """Send a frame; every rule can be broken."""
        data = payload.encode() if isinstance(payload, str) else payload
        head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
        bit = 0x80 if mask else 0
        if len(data) < 126:
            head += bytes([bit | len(data)])
        elif len(data) < 65536:
            head += bytes([bit | 126]) + struct.pack("!H", len(data))
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", len(data))
        if mask:
            # A mask of zeros is a mask: what is sent can be read in a trace.
            head += b"\0\0\0\0"
        self.given += len(head + data)
        self.socket.sendall(head + data)

    def receive(self):
        """Return the next frame as (opcode, payload); (CLOSE, code) at the end, 1006 where it came without one."""
        try:
            head = self._take(2)
            length = head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._take(8))
            payload = self._take(length)
        except ConnectionError:
            return CLOSE, 1006
        opcode = head[0] & 0x0F
        if opcode == CLOSE:
            return CLOSE, struct.unpack("!H", payload[:2])[0] if payload else 1005
        return opcode, payload

    def text(self):
        """Return the next text frame; answer pings on the way."""
        while True:
            opcode, payload = self.receive()
            if opcode == PING:
                self.send(payload, PONG)
            elif opcode == TEXT:
                return payload.decode()
            else:
                raise ConnectionError(f"closed with {payload}")

    def close_code(self):
        """Return how the connection ends, passing over everything before."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                return payload

    def drop(self):
        """Go away without a word."""
        self.socket.close()

    def _take(self, number):
        while len(self._data) < number:
            self._more()
        self.taken += number
        taken, self._data = self._data[:number], self._data[number:]
        return taken

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server has ended the connection")
        self._data += data


def dashboard(server, **options):
    """Return a dashboard's socket, of which the welcome was read."""
    client = RawClient(server.port, "/ws/dashboard", **options)
    assert json.loads(client.text())["event"] == "welcome"
    return client
