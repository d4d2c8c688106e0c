"""Redis servers of the tests' own: one for the whole run, and one for each test that wants to see Redis die."""

import socket
import subprocess
import time

import pytest

from tests.services.ports import free_port
from tests.services.programs import find_program

GIVE_UP_SECONDS = 30
TRIES = 5


class RedisServer:
    """A redis-server that keeps nothing on disk, on one port of 127.0.0.1 for its whole life."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.process = None
        self.port = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        """Start and wait until it answers; after `stop`, on the same port as before."""
        for _ in range(TRIES):
            port = self.port or free_port()
            self.process = self._spawn(port)
            if self._is_ready(port):
                self.port = port
                return
        pytest.fail(f"Redis did not start in {TRIES} tries: {self._log.read_text()}")

    def stop(self):
        """End it at once, as a crash would; nothing happens if it is not running."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def _log(self):
        return self.folder / "redis.log"

    def _spawn(self, port):
        network = ["--bind", "127.0.0.1", "--port", str(port)]
        storage = ["--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        with self._log.open("w") as log:
            return subprocess.Popen(
                [self.program, *network, *storage], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _is_ready(self, port):
        """Wait until our process answers; false when it ended, which it does when another one has the port."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while self.process.poll() is None:
            if "Ready to accept connections" in self._log.read_text() and answers(port):
                return True
            if time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"Redis did not answer within {GIVE_UP_SECONDS} s: {self._log.read_text()}")
            time.sleep(0.01)
        self.process = None
        return False


def answers(port):
    """Return whether a Redis on this port answers PING."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """The URL of a Redis that all tests of the run share: use channel names or prefixes of your own."""
    server = RedisServer(find_redis(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def redis_server(tmp_path):
    """A running `RedisServer` of this test's own, to stop and start again."""
    server = RedisServer(find_redis(), tmp_path)
    server.start()
    yield server
    server.stop()


def find_redis():
    return find_program(["redis-server"], "redis-server")
