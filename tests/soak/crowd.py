"""The crowd of a soak: dashboards of many people at several servers, which come back as the close codes say.

Some of them read slowly: 4 KiB each second, with the smallest buffer. They may be ended for it, and resume.
"""

import errno
import heapq
import itertools
import random
import selectors
import socket
import time
from collections import Counter
from types import SimpleNamespace

import msgspec

from edge.protocol.close_codes import CloseCode
from tests.scenarios.crowd import Client, Crowd
from tests.soak.pace import BUFFER_BYTES, Pace

READ_AT_ONCE = 1 << 16
"""So little that a thousand sockets with much to read each have their turn long before a server ends one as stalled."""
STALL_SECONDS = 5.0
"""QFLARE_STALL_SECONDS: who takes nothing for so long is ended."""
SLOW_BUFFER = 4096
SLOW_BYTES_PER_SECOND = 4096
ADDRESSES = 10
RESUME_EVENTS = 20_000
"""QFLARE_RESUME_EVENTS: who missed more gets a snapshot."""
FOLLOWED_SECONDS = 30.0
"""So long a dashboard still asks for a run that has ended."""
UPTIME_SECONDS = 10.0
"""A connection that lasted so long was none of a row of failures."""
ENDED_STATES = (b'"state":"completed"', b'"state":"failed"', b'"state":"stopped"')
LATE_SECONDS = 4.0
"""Who has waited so long and is not let in may be sent away: a thousand who come at once keep a busy machine busy.

Daphne gives a handshake 5 s, and QFLARE_HANDSHAKE_SECONDS are 10."""
ARRIVALS_PER_SECOND = 100
"""How fast they come at the beginning; in storms they come as fast as they can."""
REFUSED = 0
"""What stands for the end of a connection that never was one."""


class _Bye(msgspec.Struct):
    retry_after_ms: int | None = None


_bye = msgspec.json.Decoder(_Bye).decode


class SoakCrowd(Crowd):
    """So many dashboards, a few of them slow.

    Attributes:
        servers: name → port.
        watch: who is away, and where faults go.
    """

    def __init__(self, servers, sessions, count, slow, *, watch, seed):
        self.watch = watch
        self.servers = {
            name: SimpleNamespace(port=port, url=f"http://127.0.0.1:{port}") for name, port in servers.items()
        }
        self.sessions = sessions
        self.slow = slow
        self.chance = random.Random(seed)
        self.counts = Counter()
        self.is_in_haste = False
        """The slow ones read as fast as the others: it comes to the end."""
        self.turn = 0
        """How often it was looked which sockets have something to read."""
        self.looked_at = self.looked_before = time.monotonic()
        """When that was the last time, and the time before."""
        self._due = []
        self._order = itertools.count()
        super().__init__(None, count, cookie="", waits=False)

    def open_now(self):
        """Return how many know what is true."""
        return sum(client.is_open for client in self.clients)

    def storm(self, chance, share, is_hard):
        """Cut about this share of the connections, all in one way; they are back at once from where they stood."""
        chosen = [client for client in self.clients if chance.random() < share]

        def cut():
            for client in chosen:
                client.drop(is_hard)
                client.connect()

        self.counts["cut"] += len(chosen)
        self._on_thread(cut)

    def make_haste(self):
        """Let the slow ones read like the others."""

        def hurry():
            self.is_in_haste = True

        self._on_thread(hurry)

    def behind(self, heads, runs):
        """Return what clients still lack, as texts: each is to stand at the head of each stream that it follows.

        Args:
            heads: stream → the head in the database.
            runs: stream of a run → when it was made (`time.time()`).
        """
        lacks = []
        for client in self.clients:
            known = client.last
            lacks += [
                f"{client.number} stands at {name}#{known[name]} of {heads[name]}"
                for name in known
                if known[name] != heads[name]
            ]
            # Who was connected all the while must have been told of it.
            lacks += [
                f"{client.number} was never told of {name}"
                for name, made_at in runs.items()
                if name not in known and client.let_in_at < made_at - 1
            ]
            lacks += [f"{client.number} does not know {name}" for name in ("system",) if name not in known]
        return lacks

    def fault(self, what):
        super().fault(what)
        self.watch.fault(what)

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────────────

    def later(self, seconds, function):
        """Do something after a while, on the thread."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), function))

    def _client(self, number):
        return (SlowClient if number < self.slow else SoakClient)(self, number)

    def _turn(self):
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        ready = self._selector.select(wait)
        self.turn += 1
        self.looked_before, self.looked_at = self.looked_at, time.monotonic()
        for key, events in ready:
            if key.data is None:
                self._do_tasks()
            elif events & selectors.EVENT_WRITE:
                key.data.connected(key.fileobj)
            else:
                key.data.read()


class SoakClient(Client):
    """One dashboard, of one of many people."""

    receive_buffer = BUFFER_BYTES

    def __init__(self, crowd, number):
        super().__init__(crowd, number)
        self.let_in_at = time.time()
        """When it last came in."""
        self.at = ""
        """The server where it is."""
        self._ended_runs = {}
        self._failures = 0
        self._has_come = False
        self._came = 0.0
        self._opened = 0.0
        self._retry_ms = None
        self._visit = 0
        self._pace = Pace(time.monotonic())
        self._read_in = 0
        """The turn in which it was read last."""

    # ── coming and going ──────────────────────────────────────────────────────────────────────────────────────────────

    def connect(self):
        self._visit += 1
        if not self._has_come:
            self._has_come = True
            self.crowd.later(self.number / ARRIVALS_PER_SECOND, self.connect)
            return
        self._came = time.monotonic()
        self.is_let_in, self.is_open, self._is_upgraded, self._data = False, False, False, b""
        self.let_in_at = float("inf")
        self._retry_ms = None
        up = [name for name in self.crowd.servers if not self.crowd.watch.is_away(name)]
        self.at = self.crowd.chance.choice(up or list(self.crowd.servers))
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if self.receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        # Several addresses, since a server takes a thousand sockets of one.
        self._socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self._socket.bind((f"127.0.0.{2 + self.number % ADDRESSES}", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self._socket.connect_ex(("127.0.0.1", self.crowd.servers[self.at].port))
        self.crowd._selector.register(self._socket, selectors.EVENT_WRITE, self)
        if error not in (0, errno.EINPROGRESS):
            self._ended(REFUSED)

    def connected(self, fileobj):
        """Go on where the connection was made, or was not."""
        if fileobj is not self._socket:
            return  # it was dropped in this very turn
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._ended(REFUSED)
            return
        session = self.crowd.sessions[self.number % len(self.crowd.sessions)]
        try:
            self._socket.sendall(self.request(self.crowd.servers[self.at], f"sessionid={session}"))
        except OSError:
            self._ended(REFUSED)
            return
        self._pace, self._read_in = Pace(time.monotonic()), self.crowd.turn
        self.begin_reading()

    def begin_reading(self):
        self.crowd._selector.modify(self._socket, selectors.EVENT_READ, self)

    def drop(self, is_hard=False):
        if self._socket is not None:
            self.is_open = False
            super().drop(is_hard)

    def stands(self):
        now = time.monotonic()
        return [
            (name, seq)
            for name, seq in self.last.items()
            if now - self._ended_runs.get(name, now) <= FOLLOWED_SECONDS and name in self._epochs
        ]

    def _ended(self, code):
        watch, at, counts = self.crowd.watch, self.at, self.crowd.counts
        was_upgraded, lasted = self._is_upgraded, time.monotonic() - self._opened if self.is_open else 0.0
        self.drop()
        self.crowd.ends[code] += 1
        self._failures = 0 if lasted > UPTIME_SECONDS else self._failures + 1
        if why := self._why_not(code, was_upgraded):
            how_far = "open" if lasted else "let in" if self.is_let_in else "upgraded" if was_upgraded else "connecting"
            after = time.monotonic() - self._came
            self.crowd.fault(f"{self.number} ({how_far}, {after:.1f} s) was ended with {code} by {at}: {why}")
        counts["reconnects"] += was_upgraded
        if not watch.excuses(at):
            counts[f"{code} by a living server"] += 1
        visit = self._visit
        self.crowd.later(self._pause(code), lambda: self.connect() if visit == self._visit else None)

    def _why_not(self, code, was_upgraded):
        """Return why a connection must not have ended so; empty where it may."""
        excuses = self.crowd.watch.excuses
        is_late = not self.is_let_in and time.monotonic() - self._came > LATE_SECONDS
        match code:
            case CloseCode.TOO_MANY if not self.is_let_in:
                return ""
            case CloseCode.RESTARTING | CloseCode.POSITION_LOST if excuses("postgres"):
                return ""  # it could not be let in, or what it had missed could not be read
            case CloseCode.HEARTBEAT_MISSED if excuses("storm", *self.crowd.servers):
                return ""  # where many come at once, a busy server may be late to hear it
            case CloseCode.RESTARTING | 1006 | 1005 | 0 if excuses(self.at) or is_late:
                # Where a server cannot even say in time that it could not let one in, it hangs up.
                self.crowd.counts["not let in in time"] += is_late
                return ""
            case 1006 if self._pace.seconds > STALL_SECONDS:
                self.crowd.counts["read late"] += 1
                return ""
        return f"nobody had ended that server, and it had been told of room within {self._pace.seconds:.1f} s"

    def _pause(self, code):
        """Return for how long to stay away, as the rules of close codes have it."""
        chance = self.crowd.chance
        if self._retry_ms is not None:
            return self._retry_ms / 1000
        if code in (CloseCode.RESTARTING, 1012, 1013):
            return chance.uniform(0.5, 10.0)
        if code == CloseCode.TOO_MANY:
            return 30.0
        return chance.uniform(0.0, min(30.0, 0.5 * 2 ** min(self._failures, 6)))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self):
        if self._socket is None:
            return
        if self._read_in < self.crowd.turn - 1:
            self._pace.emptied(self.crowd.looked_before)  # or it would have been read in that turn
        self._read_in = self.crowd.turn
        self._take_bytes(READ_AT_ONCE)

    def _take_bytes(self, most):
        data, is_all = self._receive(most)
        now = time.monotonic()
        self._pace.read(now, len(data))
        if is_all:
            self._pace.emptied(now)
        elif not data:
            self._ended(1006)
            return
        self.crowd.counts["bytes"] += len(data)
        self._data = self._data + data if self._data else data
        if self._is_upgraded or self._upgrade():
            self._take_frames()

    def _receive(self, most):
        """Return what waits, at most so much, and whether that was all; at the end there is none, and it was not."""
        data = b""
        while len(data) < most:
            try:
                piece = self._socket.recv(most - len(data))
            except BlockingIOError:
                return data, True
            except OSError:
                piece = b""
            if not piece:
                break
            data += piece
        return data, False

    def _upgrade(self):
        if b"\r\n\r\n" in self._data and not self._data.startswith(b"HTTP/1.1 101"):
            if not self.crowd.watch.excuses(self.at, "postgres"):
                self.crowd.fault(f"{self.number} was not let in by {self.at}: {self._data[:80]!r}")
            self._ended(REFUSED)
            return False
        return super()._upgrade()

    def _take_frame(self, frame):
        counts = self.crowd.counts
        match frame.event:
            case "welcome":
                self.let_in_at = time.time()
                counts["welcomes"] += 1
            case "bye":
                self._retry_ms = _bye(frame.data).retry_after_ms
                return
            case "snapshot":
                counts["snapshots"] += 1
            case "error" if self.crowd.watch.excuses("postgres"):
                counts["errors told in an outage"] += 1
                return
        super()._take_frame(frame)
        if not self.is_open and self.is_let_in and self._is_told():
            self.is_open, self._opened = True, time.monotonic()
        if self.is_open and frame.event == "snapshot":
            self._opened = time.monotonic()

    def _is_told(self):
        """Say whether it has all that it was welcomed to; who resumes everything is sent no snapshot."""
        return all(self.last.get(name, -1) >= seq for name, seq in self.welcomed.items())

    def _step(self, stream, seq, data):
        super()._step(stream, seq, data)
        self.crowd.counts["deliveries"] += 1
        if stream.startswith("run:") and any(state in data for state in ENDED_STATES):
            self._ended_runs[stream] = time.monotonic()

    def _recover(self, recent):
        known = self.last.get(recent.stream)
        if known is not None and not recent.recovered and recent.reason == "too_far" and recent.since > known:
            # The newest events come in several frames, of which the first ends before the head.
            head = self.welcomed[recent.stream]
            if head - known <= RESUME_EVENTS:
                self.crowd.fault(f"{self.number} was not resumed in {recent.stream} from #{known} to #{head}")
            self.crowd.counts["resume window exceeded"] += 1
            self.last[recent.stream] = recent.since
        super()._recover(recent)


class SlowClient(SoakClient):
    """A dashboard that reads 4 KiB each second; it may be ended for that, and resumes."""

    receive_buffer = SLOW_BUFFER

    def begin_reading(self):
        # Between its sips nobody looks whether there is something to read.
        self.crowd._selector.unregister(self._socket)
        self._await_sip()

    def drop(self, is_hard=False):
        if self._socket is not None and self._socket not in self.crowd._selector.get_map():
            self.crowd._selector.register(self._socket, selectors.EVENT_READ, self)
        super().drop(is_hard)

    def _await_sip(self):
        visit = self._visit
        self.crowd.later(0.02 if self.crowd.is_in_haste else 1.0, lambda: self._sip(visit))

    def _sip(self, visit):
        if self._socket is None or visit != self._visit:
            return
        self._take_bytes(READ_AT_ONCE if self.crowd.is_in_haste else SLOW_BYTES_PER_SECOND)
        if self._socket is not None and visit == self._visit:
            self._await_sip()

    def _why_not(self, code, was_upgraded):
        if was_upgraded and code in (1006, CloseCode.TOO_SLOW, CloseCode.HEARTBEAT_MISSED):
            if not self.crowd.watch.excuses(self.at):
                self.crowd.counts["slow readers ended"] += 1
            return ""
        return super()._why_not(code, was_upgraded)


IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: the port is only chosen at `connect`, so that many may be bound."""
