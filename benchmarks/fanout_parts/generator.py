"""The load generator: many WebSockets in one process, by raw sockets and epoll, with as little work a frame as can be.

python -m fanout_parts.generator TOKENS

It takes commands as lines of JSON on standard input and answers each with a line of JSON. For each event that every
subscriber has, it writes a byte into the pipe TOKENS, if the phase asks for it.
"""

import json
import math
import os
import select
import socket
import sys
import time
from array import array
from typing import Any

import numpy as np

from fanout_parts.marks import MARK, MARK_BYTES, NUMBER_DIGITS
from fanout_parts.wire import CLOSE, HEARTBEAT, PING, PONG, TEXT, Refused, ask_upgrade, await_upgrade, connect, masked

READ_BYTES = 256 * 1024
QUIET_SECONDS = 1.0
"""Nothing came for so long: everybody has been told what there was to tell."""
_NUMBER_END = len(MARK) + NUMBER_DIGITS


class Peer:
    """One subscriber."""

    __slots__ = ("is_welcome", "last", "recv", "rest", "socket")

    def __init__(self, client: socket.socket, rest: bytes) -> None:
        self.socket = client
        self.recv = client.recv
        self.rest = rest
        self.last = -1
        """Number of the newest event that it has."""
        self.is_welcome = False


class Generator:
    """All subscribers of one server, and what they have received."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._epoll = select.epoll()
        self._input = sys.stdin.fileno()
        self._epoll.register(self._input, select.EPOLLIN)
        self._peers: dict[int, Peer] = {}
        self._size = 0
        """How many subscribers there are, those that the server has closed since included."""
        self._closed: list[int] = []
        self._pools: dict[str, tuple[array[int], array[int]]] = {}
        self._traffic = {"bytes_in": 0, "frames_in": 0, "bytes_out": 0, "frames_out": 0}
        self._last_frame = self._last_event = time.monotonic()
        self._arm(0, gives_tokens=False)

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Do what is commanded until the input ends."""
        commands = b""
        while True:
            if not self._turn(1.0):
                continue
            more = os.read(self._input, 65536)
            if not more:
                return
            commands += more
            while b"\n" in commands:
                line, _, commands = commands.partition(b"\n")
                command = json.loads(line)
                try:
                    answer = getattr(self, command.pop("do"))(**command)
                except (Refused, OSError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()

    def connect(
        self, port: int, path: str, count: int, cookies: list[str], rate: float, welcomes: bool
    ) -> dict[str, Any]:
        """Open sockets until there are `count`, `rate` a second at most, and wait until the server is silent.

        Each waits for the answer to its upgrade, unless the rate has no limit: then all have asked before one is read.

        Returns:
            How many are connected, and how many seconds it took until the last had all that it is told at first.
        """
        begin, before = time.monotonic(), len(self._peers)
        asked = []
        for number in range(before, count):
            wait = begin + (number - before) / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            asked.append(connect(port, number))
            ask_upgrade(asked[-1], port, path, cookies[number % len(cookies)] if cookies else "")
            if math.isfinite(rate):
                self._open(asked.pop())
        for client in asked:
            self._open(client)
        self._size = count
        self._last_frame = time.monotonic()
        while time.monotonic() - self._last_frame < QUIET_SECONDS:
            self._turn(0.1)
        if self._closed:
            return {"error": f"{len(self._closed)} sockets were closed with {sorted(set(self._closed))}"}
        if welcomes and (missing := sum(not peer.is_welcome for peer in self._peers.values())):
            return {"error": f"{missing} sockets were not welcomed"}
        return {"connected": len(self._peers), "seconds": self._last_frame - begin}

    def _open(self, client: socket.socket) -> None:
        rest = await_upgrade(client)
        client.setblocking(False)
        peer = self._peers[client.fileno()] = Peer(client, b"")
        self._epoll.register(client.fileno(), select.EPOLLIN)
        if rest:
            self._take(peer, rest)

    def arm(self, first: int, gives_tokens: bool) -> dict[str, Any]:
        """Begin to count: events from number `first` on."""
        self._arm(first, gives_tokens=gives_tokens)
        return {"armed": first}

    def collect(self, published: int, patience: float, pool: str) -> dict[str, Any]:
        """Wait until all has come, or nothing more comes, and tell what came.

        Args:
            published: how many events there are.
            patience: seconds without any event after which the rest is lost.
            pool: latencies are kept under this name for `summary`; none for an empty one.
        """
        wanted = published * self._size
        self._last_event = time.monotonic()
        while len(self._ages) < wanted and time.monotonic() - self._last_event < patience:
            self._turn(0.05)
        if pool:
            ages, whole = self._pools.setdefault(pool, (array("q"), array("q")))
            ages.extend(self._ages)
            whole.extend(self._whole)
        delivered = len(self._ages)
        return {
            "delivered": delivered,
            "lost": wanted - delivered,
            "disordered": self._disordered,
            "closed": len(self._closed),
            "seconds": max(self._ended - self._began, 1) / 1e9 if delivered else 0.0,
            "frame_bytes": self._frame_bytes / delivered if delivered else 0.0,
            **_percentiles("", self._ages),
            **_percentiles("whole_", self._whole),
        }

    def summary(self, pool: str) -> dict[str, Any]:
        """Tell the latencies of all that was collected under a name."""
        ages, whole = self._pools.get(pool, (array("q"), array("q")))
        return {"events": len(whole), **_percentiles("", ages), **_percentiles("whole_", whole)}

    def traffic(self) -> dict[str, Any]:
        """Tell what went over all WebSockets since they were opened, headers of frames included."""
        return {**self._traffic, "closed": len(self._closed)}

    # ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, first: int, *, gives_tokens: bool) -> None:
        self._first = first
        self._gives_tokens = gives_tokens
        self._counts: list[int] = []
        self._ages = array("q")
        """Nanoseconds from publishing to arrival, one for each delivery."""
        self._whole = array("q")
        """Nanoseconds from publishing to the last subscriber's arrival, one for each event that all have."""
        self._disordered = 0
        self._began = 1 << 63
        self._ended = 0
        self._frame_bytes = 0

    def _turn(self, timeout: float) -> bool:
        """Take what has come; say whether a command is there."""
        is_commanded = False
        for descriptor, _ in self._epoll.poll(timeout):
            if descriptor == self._input:
                is_commanded = True
                continue
            peer = self._peers[descriptor]
            try:
                data = peer.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if data:
                self._take(peer, data)
            else:
                self._forget(peer, 1006)
        return is_commanded

    def _take(self, peer: Peer, data: bytes) -> None:
        now = time.monotonic_ns()
        if peer.rest:
            data = peer.rest + data
        position, end = 0, len(data)
        while end - position >= 2:
            first, size = data[position], data[position + 1]
            start = position + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2]), start + 2
            elif size == 127:
                size, start = int.from_bytes(data[start : start + 8]), start + 8
            stop = start + size
            if stop > end:
                break
            # Pings hold random bytes, in which a mark would be no mark.
            at = data.find(MARK, start, stop) if first == TEXT else -1
            if at >= 0:
                self._count(peer, data, start, at, stop, now)
            else:
                self._take_other(peer, first, data[start:stop])
            self._traffic["bytes_in"] += stop - position
            self._traffic["frames_in"] += 1
            position = stop
        peer.rest = data[position:]

    def _count(self, peer: Peer, data: bytes, start: int, at: int, stop: int, now: int) -> None:
        """Count the events of a frame, the first of which is marked at `at`; there may be several in one."""
        while at >= 0:
            number, sent = int(data[at + 2 : at + _NUMBER_END]), int(data[at + _NUMBER_END : at + MARK_BYTES])
            at = data.find(MARK, at + MARK_BYTES, stop)
            if number <= peer.last:
                self._disordered += 1
                continue
            peer.last = number
            index = number - self._first
            while index >= len(self._counts):
                self._counts.append(0)
            self._counts[index] += 1
            self._ages.append(now - sent)
            if sent < self._began:
                self._began = sent
            if self._counts[index] == self._size:
                self._whole.append(now - sent)
                if self._gives_tokens:
                    os.write(self._tokens, b".")
        self._ended = now
        self._last_event = now / 1e9
        self._frame_bytes += stop - start

    def _take_other(self, peer: Peer, first: int, payload: bytes) -> None:
        # Where many have come, some of them are always asked whether they are there.
        if first == PING:
            self._send(peer, masked(PONG, payload))
            return
        if first == TEXT and payload.startswith(b'{"event":"heartbeat"'):
            self._send(peer, masked(TEXT, HEARTBEAT))
            return
        self._last_frame = time.monotonic()
        if first == CLOSE:
            self._forget(peer, int.from_bytes(payload[:2]) if payload else 1005)
        elif first == TEXT and payload.startswith(b'{"event":"welcome"'):
            peer.is_welcome = True

    def _send(self, peer: Peer, frame: bytes) -> None:
        peer.socket.send(frame)
        self._traffic["bytes_out"] += len(frame)
        self._traffic["frames_out"] += 1

    def _forget(self, peer: Peer, code: int) -> None:
        if self._peers.pop(peer.socket.fileno(), None) is not None:
            self._closed.append(code)
            self._epoll.unregister(peer.socket.fileno())
            peer.socket.close()


def _percentiles(prefix: str, nanoseconds: "array[int]") -> dict[str, float]:
    if not nanoseconds:
        return {}
    p50, p99 = np.percentile(np.frombuffer(nanoseconds, dtype=np.int64), [50, 99]) / 1e6
    return {f"{prefix}p50_ms": float(p50), f"{prefix}p99_ms": float(p99)}


if __name__ == "__main__":
    Generator(int(sys.argv[1])).run()
