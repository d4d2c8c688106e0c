"""Many dashboards down to bytes, in one thread: they keep the rules, and keep account of what they are told.

A client stands at a place in each stream, and knows what has to come next. Anything else is a fault, which it notes
and `assert_exact` shows. It answers pings and heartbeats, can be cut off at any moment, and comes back from where it
stands.
"""

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from base64 import b64encode
from collections import Counter, deque
from urllib.parse import quote

import msgspec

GIVE_UP_SECONDS = 60
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
READ_AT_ONCE = 1 << 18
FAULTS_KEPT = 20
FRAMES_KEPT = 12

_crowds = []


def leave_all():
    """Let all crowds go that a test has left there."""
    while _crowds:
        _crowds[-1].leave()


class _Position(msgspec.Struct):
    epoch: str
    seq: int


class _Welcome(msgspec.Struct):
    streams: dict[str, _Position]


class _Logged(msgspec.Struct):
    seq: int
    data: msgspec.Raw


class _Recent(msgspec.Struct):
    stream: str
    epoch: str
    recovered: bool
    reason: str
    events: list[_Logged]
    since: int
    to: int


class _Snapshot(msgspec.Struct):
    more: bool = False


class _Title(msgspec.Struct):
    title: str = ""


class _Frame(msgspec.Struct):
    event: str
    data: msgspec.Raw
    stream: str | None = None
    seq: int | None = None
    epoch: str | None = None


_frame = msgspec.json.Decoder(_Frame).decode
_welcome = msgspec.json.Decoder(_Welcome).decode
_recent = msgspec.json.Decoder(_Recent).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_title = msgspec.json.Decoder(_Title).decode


class Crowd:
    """So many dashboards of one person."""

    def __init__(self, server, count, *, cookie, path="/ws/dashboard", comes_back=(), waits=True):
        """Connect, and wait until all know what is true.

        Args:
            comes_back: close codes after which clients come back as they are told to; any other end is a fault.
            waits: only return when all are open.
        """
        self.server = server
        self.cookie = cookie
        self.path = path
        self.comes_back = frozenset(comes_back)
        self.ends = Counter()
        """How connections ended that were not cut from here: code → how often."""
        self.faults = []
        self.resumed = 0
        """How many connections took up a stream where they had stood."""
        self._said = {}
        """(stream, seq) → a digest of what was told there; it has to be the same for all."""
        self._titles = {}
        self._changed = threading.Condition()
        self._tasks = []
        self._selector = selectors.DefaultSelector()
        self._wakes, self._wake = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._is_over = False
        self.clients = [self._client(number) for number in range(count)]
        _crowds.append(self)
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._thread.start()
        self._on_thread(lambda: [client.connect() for client in self.clients])
        if waits:
            self.wait_until(lambda: all(client.is_open for client in self.clients), "not all were let in")

    # ── for tests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def wait_for(self, stream, seq):
        """Wait until every client has come so far in a stream."""
        self.wait_until(
            lambda: self.least(stream) >= seq, lambda: f"{stream} stands at {self.least(stream)}, not {seq}"
        )

    def least(self, stream):
        """Return how far the client is in a stream that is least far."""
        return min(client.last.get(stream, 0) for client in self.clients)

    def titles(self, stream):
        """Return what was told in a stream: seq → title."""
        return {seq: title for (name, seq), title in self._titles.items() if name == stream}

    def wait_until(self, claim, what):
        """Wait until something is true of the clients."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        with self._changed:
            while not claim():
                left = give_up - time.monotonic()
                said = what() if callable(what) else what
                assert left > 0, f"{said}; ends: {self.ends}; faults: {self.faults}"
                # Looked at once a second also, since an assertion about faults should not wait for two minutes.
                self._changed.wait(min(left, 1.0))
                assert not self.faults, self.faults

    def sign_in_again(self, cookie):
        """Come with another cookie from now on; returns when those are in who still came with the old one."""
        self.cookie = cookie
        self.wait_until(lambda: all(client.is_let_in for client in self.clients), "not all were let in")

    def cut(self, random, share):
        """Cut about this share of the connections off, without a word, and come back at once from where each stood.

        Returns when they are on their way back; some find the old connection's last words cut in two.
        """
        chosen = [client for client in self.clients if random.random() < share]
        # Half of them vanish as a peer does that loses its power: with a reset, not an end.
        hard = [random.random() < 0.5 for _ in chosen]

        def cut():
            for client, is_hard in zip(chosen, hard, strict=True):
                client.drop(is_hard)
                client.connect()

        self._on_thread(cut)
        return len(chosen)

    def assert_exact(self):
        """Make sure that every client was told the same, in order, with nothing missing and nothing twice."""
        assert self.faults == []
        streams = {name for client in self.clients for name in client.last}
        for name in streams:
            self.wait_for(name, max(client.last.get(name, 0) for client in self.clients))
        assert self.faults == []

    def leave(self):
        """Go, all of them."""
        if self in _crowds:
            _crowds.remove(self)
            self._is_over = True
            self._wake.send(b"x")
            self._thread.join(GIVE_UP_SECONDS)
            self._selector.close()
            for one in (self._wakes, self._wake):
                one.close()

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_thread(self, work):
        done = threading.Event()
        self._tasks.append(lambda: (work(), done.set()))
        self._wake.send(b"x")
        assert done.wait(GIVE_UP_SECONDS), "the crowd does not answer"

    def _run(self):
        try:
            while not self._is_over:
                self._turn()
                with self._changed:
                    self._changed.notify_all()
        except Exception as error:
            self.fault(f"the crowd broke: {type(error).__name__}: {error}")
            raise
        finally:
            for client in self.clients:
                client.drop()

    def _client(self, number):
        return Client(self, number)

    def _turn(self):
        for key, _ in self._selector.select():
            if key.data is not None:
                key.data.read()
            else:
                self._do_tasks()

    def _do_tasks(self):
        self._wakes.recv(4096)
        while self._tasks:
            self._tasks.pop(0)()

    def fault(self, what):
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(what)

    def told(self, stream, seq, data):
        """Take note of what was told at a place; a second time it has to be the same."""
        digest = hash(data)
        known = self._said.setdefault((stream, seq), digest)
        if known != digest:
            self.fault(f"{stream}#{seq} was told in two ways")
        if (stream, seq) not in self._titles:
            self._titles[stream, seq] = _title(data).title


class Client:
    """One dashboard."""

    def __init__(self, crowd, number):
        self.crowd = crowd
        self.number = number
        self.last = {}
        """How far it is in each stream."""
        self.is_let_in = False
        """It has been welcomed."""
        self.is_open = False
        """It knows what is true."""
        self.welcomed = {}
        """Where its streams stood when it was last let in."""
        self._epochs = {}
        self._socket = None
        self._is_upgraded = False
        self._data = b""
        self._frames = deque(maxlen=FRAMES_KEPT)
        """The newest frames, to be told with a fault: event, stream, seq, and how many bytes of data."""

    def connect(self):
        """Come, or come back from where it stands."""
        server = self.crowd.server
        self.is_let_in, self._is_upgraded, self._data = False, False, b""
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=GIVE_UP_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self.request(server, self.crowd.cookie))
        self.crowd._selector.register(self._socket, selectors.EVENT_READ, self)

    def request(self, server, cookie):
        """Return the upgrade request of one who comes from where it stands."""
        since = "&".join(
            f"since={quote(f'{name}:{self._epochs[name]}:{seq}', safe=':')}" for name, seq in self.stands()
        )
        lines = [
            f"GET {self.crowd.path}{'?' + since if since else ''} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Origin: {server.url}",
            f"Cookie: {cookie}",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def stands(self):
        """Return the places from which it wants to go on: (stream, seq)."""
        return self.last.items()

    def drop(self, is_hard=False):
        """Go without a word."""
        if self._socket is not None:
            self.crowd._selector.unregister(self._socket)
            if is_hard:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.close()
            self._socket = None

    def read(self):
        """Take what has come."""
        if self._socket is None:
            return  # it was dropped in this very turn
        try:
            data = self._socket.recv(READ_AT_ONCE)
        except OSError:
            data = b""
        if not data:
            self._ended(1006)
            return
        self._data = self._data + data if self._data else data
        if self._is_upgraded or self._upgrade():
            self._take_frames()

    def _upgrade(self):
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self.crowd.fault(f"{self.number} was not let in: {head[:80]!r}")
        self._is_upgraded, self._data = True, rest
        return True

    def _take_frames(self):
        data, at, end = self._data, 0, len(self._data)
        while end - at >= 2:
            opcode, length, start = data[at] & 0x0F, data[at + 1], at + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[at + 2 : start])
            elif length == 127:
                start += 8
                length = int.from_bytes(data[at + 2 : start])
            if end < start + length:
                break
            at = start + length
            self._take(opcode, data[start:at])
            if self._socket is None or not self._is_upgraded:
                return  # it ended, and perhaps it is back already
        self._data = data[at:]

    def _take(self, opcode, payload):
        if opcode == TEXT:
            self._take_frame(_frame(payload))
        elif opcode == PING:
            self._send(PONG, payload)
        elif opcode == CLOSE:
            self._ended(int.from_bytes(payload[:2]) if payload else 1005)

    def _take_frame(self, frame):
        self._frames.append((frame.event, frame.stream, frame.seq, len(frame.data)))
        if frame.seq is not None:
            if frame.epoch is not None:
                self._epochs[frame.stream] = frame.epoch
            self._step(frame.stream, frame.seq, bytes(frame.data))
            return
        match frame.event:
            case "welcome":
                streams = _welcome(frame.data).streams
                self._epochs |= {name: position.epoch for name, position in streams.items()}
                self.welcomed = {name: position.seq for name, position in streams.items()}
                self.is_let_in = True
            case "recent_events":
                self._recover(_recent(frame.data))
            case "snapshot" if not _snapshot(frame.data).more:
                self.is_open = True
            case "heartbeat":
                self._send(TEXT, b'{"type":"heartbeat"}')
            case "error":
                self.crowd.fault(f"{self.number} was told: {bytes(frame.data)!r}")

    def _step(self, stream, seq, data):
        expected = self.last.get(stream, 0) + 1
        if seq != expected:
            what = "twice" if seq < expected else "a hole before"
            before = f"#{expected - 1}" if stream in self.last else "nothing"
            self.crowd.fault(f"{self.number} got {what} {stream}#{seq}, after {before}; frames: {list(self._frames)}")
        self.last[stream] = seq
        self.crowd.told(stream, seq, data)

    def _recover(self, recent):
        name = recent.stream
        known = self.last.get(name)
        if known is not None and self._epochs.get(name) != recent.epoch:
            self.crowd.fault(f"{self.number}: {name} has another history")
        if not recent.recovered and known is None:
            self.last[name] = recent.since
        elif not recent.recovered and recent.since != known:
            self.crowd.fault(f"{self.number} did not get what it missed in {name} after #{known}: {recent.reason}")
        elif recent.recovered and recent.since != known:
            self.crowd.fault(f"{self.number} stood at {name}#{known} and was resumed at #{recent.since}")
        self.crowd.resumed += recent.recovered
        self._epochs[name] = recent.epoch
        for event in recent.events:
            self._step(name, event.seq, bytes(event.data))
        if self.last[name] != recent.to:
            self.crowd.fault(f"{self.number} was to be at {name}#{recent.to}, and is at #{self.last[name]}")

    def _ended(self, code):
        self.drop()
        self.crowd.ends[code] += 1
        if code in self.crowd.comes_back:
            self.connect()
        else:
            self.crowd.fault(f"{self.number} was ended with {code}")

    def _send(self, opcode, payload):
        # A mask of zeros is a mask.
        with contextlib.suppress(OSError):
            self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload)
