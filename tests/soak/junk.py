"""Those who break the rules: frames that are none, texts that are none, messages without an end, nonsense, silence."""

import contextlib
import random
import socket
import threading
from collections import Counter

from tests.realtime import raw
from tests.realtime.raw import BINARY, TEXT, RawClient, Refused

PAUSE_SECONDS = 0.5
GIVE_UP_SECONDS = 30.0
"""Within so long the server ends what broke the wire's rules."""
FRAGMENT = b" " * 16_384
FRAGMENTS = 100
"""More than the longest message has."""


class Junk:
    """One after another, each at a server that is drawn; what the server should have ended and has not is a fault."""

    def __init__(self, servers, sessions, *, watch, seed):
        self.counts = Counter()
        self._servers = servers
        self._sessions = sessions
        self._watch = watch
        self._chance = random.Random(f"junk {seed}")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="junk", daemon=True)
        self._thread.start()

    def leave(self):
        self._is_over.set()
        self._thread.join(2 * GIVE_UP_SECONDS)
        assert not self._thread.is_alive(), "junk does not end"

    def _run(self):
        kinds = [self._broken_frame, self._bad_text, self._endless, self._nonsense, self._half]
        while not self._is_over.wait(self._chance.uniform(0, 2 * PAUSE_SECONDS)):
            name, kind = self._chance.choice(list(self._servers)), self._chance.choice(kinds)
            what = kind.__name__.strip("_").replace("_", " ")
            try:
                kind(self._servers[name])
                self.counts[what] += 1
            except TimeoutError:
                if not self._watch.excuses(name, "postgres"):
                    self._watch.fault(f"{name} has not ended junk within {GIVE_UP_SECONDS:g} s: {what}")
            except (OSError, Refused):
                if not self._watch.excuses(name, "postgres"):
                    self._watch.fault(f"{name} did not take a connection for junk: {what}")
            except Exception as error:
                self._watch.fault(f"junk broke: {what}: {type(error).__name__}: {error}")
                raise

    @contextlib.contextmanager
    def _socket(self, port):
        session = self._chance.choice(self._sessions)
        options = {"origin": f"http://127.0.0.1:{port}", "headers": [f"Cookie: sessionid={session}"]}
        client = RawClient(port, "/ws/dashboard", **options)
        client.socket.settimeout(GIVE_UP_SECONDS)
        try:
            yield client
        finally:
            client.drop()
            raw.open_clients.remove(client)

    def _to_its_end(self, client, send):
        """Send, whatever the server thinks of it meanwhile, and read until it ends."""
        with contextlib.suppress(ConnectionError):
            send()
        with contextlib.suppress(ConnectionError):
            client.close_code()

    def _broken_frame(self, port):
        """A frame with bits that mean nothing, of a kind that is none, or without a mask."""
        breach = self._chance.choice([{"reserved": 4}, {"opcode": 5}, {"mask": False}, {"opcode": 9, "fin": False}])
        with self._socket(port) as client:
            self._to_its_end(client, lambda: client.send(self._chance.randbytes(20), **breach))

    def _bad_text(self, port):
        """A text that is no UTF-8, or so many texts that are no messages that the server has enough."""
        with self._socket(port) as client:
            if self._chance.random() < 0.5:
                self._to_its_end(client, lambda: client.send(b"\xff\xfe\xc0", TEXT))
            else:
                self._to_its_end(client, lambda: [client.send(b"\0" * 10, BINARY) for _ in range(20)])

    def _endless(self, port):
        """A message of fragments without an end."""

        def send():
            client.send(b" ", TEXT, fin=False)
            for _ in range(FRAGMENTS):
                client.send(FRAGMENT, 0, fin=False)

        with self._socket(port) as client:
            self._to_its_end(client, send)

    def _nonsense(self, port):
        """Random bytes instead of HTTP."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_SECONDS) as peer,
            contextlib.suppress(ConnectionError),
        ):
            peer.sendall(self._chance.randbytes(self._chance.randrange(1, 2000)) + b"\r\n\r\n")
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass

    def _half(self, port):
        """Half an upgrade request, and then silence; it is the client who gives up."""
        lines = ["GET /ws/dashboard HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgr"]
        with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_SECONDS) as peer:
            peer.sendall("\r\n".join(lines).encode())
            self._is_over.wait(self._chance.uniform(0, 2))
