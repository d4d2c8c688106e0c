"""The polling that sockets replace: many clients that ask for a list every so often, over connections kept alive.

python -m fanout_parts.polling PORT COOKIE CLIENTS PERIOD SECONDS

Asks for so many seconds after all clients have asked once, and prints what it saw as a line of JSON. The clients'
turns are spread evenly over the period.
"""

import heapq
import json
import select
import socket
import sys
import time
from typing import Any

import numpy as np

from fanout_parts.marks import MARK, MARK_BYTES, NUMBER_DIGITS
from fanout_parts.wire import connect

PATH = "/happenings/"
_NUMBER_END = len(MARK) + NUMBER_DIGITS


class Client:
    """One browser that polls."""

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self.data = b""
        self.last = -1
        """Number of the newest row that it has seen."""


class Pollers:
    """All of them."""

    def __init__(self, port: int, cookie: str, count: int, period: float) -> None:
        self._request = (
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nCookie: {cookie}\r\n\r\n"
        ).encode()
        self._period = period
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._due: list[tuple[float, int]] = []
        begin = time.monotonic()
        for number in range(count):
            client = Client(connect(port, number))
            self._clients[client.socket.fileno()] = client
            self._epoll.register(client.socket.fileno(), select.EPOLLIN)
            heapq.heappush(self._due, (begin + period * number / count, client.socket.fileno()))
        self._begun = begin + period
        self.requests = self.bytes_in = self.bytes_out = 0
        self.ages: list[int] = []

    def run(self, seconds: float) -> dict[str, Any]:
        """Let everybody ask once, then count for so long."""
        self._run_until(self._begun)
        # Whoever wants to know what it costs the server looks at its clock now, and when the answer is printed.
        print(json.dumps({"counting": True}), flush=True)
        self.requests = self.bytes_in = self.bytes_out = 0
        self.ages.clear()
        self._run_until(self._begun + seconds)
        p50, p99 = np.percentile(self.ages, [50, 99]) / 1e6 if self.ages else (float("nan"), float("nan"))
        return {
            "seconds": seconds,
            "requests": self.requests,
            "bytes": self.bytes_in + self.bytes_out,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
        }

    def _run_until(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            while self._due[0][0] <= now:
                due, descriptor = heapq.heappop(self._due)
                self._clients[descriptor].socket.sendall(self._request)
                self.bytes_out += len(self._request)
                heapq.heappush(self._due, (due + self._period, descriptor))
            for descriptor, _ in self._epoll.poll(max(min(self._due[0][0], end) - now, 0)):
                self._take(self._clients[descriptor])

    def _take(self, client: Client) -> None:
        data = client.socket.recv(256 * 1024)
        now = time.monotonic_ns()
        if not data:
            raise SystemExit("the server ended a connection")
        self.bytes_in += len(data)
        client.data += data
        head, found, body = client.data.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the list was not given: {head.decode('latin-1')}")
        client.data = b""
        self.requests += 1
        self._look(client, body, now)

    def _look(self, client: Client, body: bytes, now: int) -> None:
        """Note how old the rows are that are new to this client; at its first look all are old."""
        newest, at = client.last, body.find(MARK)
        while at >= 0:
            number, sent = int(body[at + len(MARK) : at + _NUMBER_END]), int(body[at + _NUMBER_END : at + MARK_BYTES])
            if number > client.last >= 0:
                self.ages.append(now - sent)
            newest, at = max(newest, number), body.find(MARK, at + MARK_BYTES)
        client.last = newest


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise SystemExit("the list came without its length")


if __name__ == "__main__":
    pollers = Pollers(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(pollers.run(float(sys.argv[5]))))
