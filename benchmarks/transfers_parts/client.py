"""The clients, each in a process of its own so that it slows nothing down but itself; prints seconds, or milliseconds.

    python -m transfers_parts.client upload PORT PATH FILE HEADERS      sends a file
    python -m transfers_parts.client refused PORT PATH HEADERS          begins to send too much
    python -m transfers_parts.client download PORT PATH HEADERS COUNT   fetches so many times at once
    python -m transfers_parts.client echo PORT                          pings a socket every 5 ms until its input ends

HEADERS are a JSON object.
"""

import json
import os
import select
import socket
import struct
import sys
import time
from base64 import b64encode
from pathlib import Path

EVERY_SECONDS = 0.005
PIECE = 1024 * 1024


def upload(port: str, path: str, file: str, headers: str) -> float:
    """Send a file, wait for the answer, and return the seconds from the first byte to the last."""
    size = Path(file).stat().st_size
    with socket.create_connection(("127.0.0.1", int(port))) as peer, Path(file).open("rb") as source:
        began = time.perf_counter()
        peer.sendall(_head("PUT", path, {**json.loads(headers), "Content-Length": str(size)}))
        peer.sendfile(source)
        status, _, _ = _read_head(peer)
        took = time.perf_counter() - began
    if status != 200:
        raise SystemExit(f"the upload was answered {status}")
    return took


def refused(port: str, path: str, headers: str) -> float:
    """Say that more bytes come than any model has, and return the seconds until that is refused."""
    with socket.create_connection(("127.0.0.1", int(port))) as peer:
        began = time.perf_counter()
        peer.sendall(_head("PUT", path, {**json.loads(headers), "Content-Length": str(10**12)}))
        status, _, _ = _read_head(peer)
        took = time.perf_counter() - began
    if status != 413:
        raise SystemExit(f"an upload that is too long was answered {status}")
    return took


def download(port: str, path: str, headers: str, count: str) -> float:
    """Fetch the same so many times at once, throw it away, and return the seconds until all have it."""
    peers = {}
    began = time.perf_counter()
    for _ in range(int(count)):
        peer = socket.create_connection(("127.0.0.1", int(port)))
        peer.sendall(_head("GET", path, json.loads(headers)))
        peers[peer] = 0
    for peer in peers:
        status, length, early = _read_head(peer)
        if status not in (200, 206):
            raise SystemExit(f"the download was answered {status}")
        peers[peer] = length - early
    buffer = bytearray(PIECE)
    while any(peers.values()):
        ready, _, _ = select.select([peer for peer, left in peers.items() if left], [], [])
        for peer in ready:
            got = peer.recv_into(buffer, min(PIECE, peers[peer]))
            if not got:
                raise SystemExit("the download broke off")
            peers[peer] -= got
    return time.perf_counter() - began


def echo(port: str) -> list[float]:
    """Ping a WebSocket every 5 ms until the input ends, and return how many milliseconds each answer took."""
    peer = socket.create_connection(("127.0.0.1", int(port)))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wanted = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    peer.sendall(_head("GET", "/ws", wanted))
    if _read_head(peer)[0] != 101:
        raise SystemExit("the socket was refused")
    print("open", flush=True)
    took, waiting = [], b""
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.perf_counter()
        payload = struct.pack("!d", began)
        peer.sendall(b"\x89\x88\0\0\0\0" + payload)
        while payload not in waiting:  # other frames may come first
            waiting = waiting[-64:] + peer.recv(65536)
        now = time.perf_counter()
        took.append((now - began) * 1000)
        time.sleep(max(0.0, EVERY_SECONDS - (now - began)))
    return took


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _read_head(peer: socket.socket) -> tuple[int, int, int]:
    """Read to the end of the headers; return the status, the Content-Length and how much of the body came with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(4096)
        if not piece:
            raise SystemExit("the server ended the connection")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(head.split(b" ")[1]), int(lengths[0]) if lengths else 0, len(body)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upload", port, path, file, headers]:
            print(upload(port, path, file, headers))
        case ["refused", port, path, headers]:
            print(refused(port, path, headers))
        case ["download", port, path, headers, count]:
            print(download(port, path, headers, count))
        case ["echo", port]:
            print(json.dumps(echo(port)))
        case _:
            raise SystemExit(__doc__)
