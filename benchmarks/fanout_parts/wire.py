"""The client's side of HTTP and of RFC 6455, as little of it as a load generator needs."""

import os
import socket
from base64 import b64encode

TEXT, CLOSE, PING = 0x81, 0x88, 0x89
PONG = 0x8A
HEARTBEAT = b'{"type":"heartbeat"}'
CONNECT_SECONDS = 60.0
CONNECTIONS_PER_ADDRESS = 500
"""All of 127.0.0.0/8 is this machine; a server that counts connections by address sees several."""


class Refused(Exception):
    """The server did not open the socket."""


def connect(port: int, number: int) -> socket.socket:
    """Return a connection to a server of this machine; `number` counts connections, and chooses the address."""
    client = socket.socket()
    client.settimeout(CONNECT_SECONDS)
    client.bind((f"127.0.0.{1 + number // CONNECTIONS_PER_ADDRESS}", 0))
    client.connect(("127.0.0.1", port))
    return client


def ask_upgrade(client: socket.socket, port: int, path: str, cookie: str) -> None:
    """Ask for a WebSocket as a page of the server's own would."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Origin: http://127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *([f"Cookie: {cookie}"] if cookie else []),
    ]
    client.sendall("\r\n".join([*lines, "", ""]).encode())


def await_upgrade(client: socket.socket) -> bytes:
    """Wait for the answer, and return the bytes that came after its head.

    Raises:
        Refused: the answer is no upgrade.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            raise Refused("the server ended the connection instead of opening the socket")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise Refused(head.decode("latin-1"))
    return rest


def masked(first: int, payload: bytes) -> bytes:
    """Return a client's frame of up to 125 bytes; a mask of zeros is a mask."""
    return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload
