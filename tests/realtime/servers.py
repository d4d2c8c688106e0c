"""Starts real servers as processes of their own, for tests of the wire and journeys; they can be killed and restarted.

server = start_server(folder)                       a new SQLite database in the folder, migrated
server = start_server(folder, database=path)        an existing one, such as the test's own
server.url, server.websocket_url("/ws/dashboard"), server.manage("shell", "-c", "…")
server.stop() -> exit code (SIGTERM)   server.kill() (SIGKILL)   server.start() again on the same port
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.services.ports import free_port

ROOT = Path(__file__).parent.parent.parent
GIVE_UP_SECONDS = 120
OURS = ["daphne", "uvicorn"]
"""What `manage.py serve` serves on."""
STOCK = "stock uvicorn"
STOCK_OPTIONS = ["--ws-per-message-deflate", "false", "--ws-max-size", "1048576"]
STOCK_OPTIONS += ["--ws-ping-interval", "75", "--ws-ping-timeout", "20"]
STOCK_OPTIONS += ["--timeout-graceful-shutdown", "4", "--no-proxy-headers"]
"""As the deployment document has them."""
ENVIRONMENT = {
    "QFLARE_PUBLIC_DASHBOARD": "1",
    "QFLARE_POLL_SECONDS": "0.1",
    "QFLARE_STALL_SECONDS": "1",
    "QFLARE_ALLOWED_ORIGINS": "https://app.example",
}
"""For tests of the wire: what is worth waiting for comes soon."""


class Server:
    """A server process with its folder, its database and its port."""

    def __init__(self, folder: Path, environment: Mapping[str, str], kind: str, port: int):
        self.folder = folder
        self.kind = kind
        self.port = port
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.process = None
        self.starts = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def websocket_url(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    @property
    def log(self):
        """All that the server has written so far, over all its starts."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("server-*.log")))

    def wait_for_log(self, words):
        """Wait until the server has written this."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while words not in self.log:
            assert time.monotonic() < give_up, self.log
            time.sleep(0.05)

    def start(self):
        """Start the process and wait until it answers."""
        self.starts += 1
        with (self.folder / f"server-{self.starts:03d}.log").open("w") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_answers()
        return self

    def stop(self):
        """End the process as a supervisor does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GIVE_UP_SECONDS)

    def kill(self):
        """End the process as a power cut does."""
        self.process.kill()
        self.process.wait(GIVE_UP_SECONDS)

    def manage(self, *arguments):
        """Run a management command on the same database; return what it printed."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self):
        if self.kind == STOCK:
            target = ["-m", "uvicorn", "qflare.asgi:application", "--host", "127.0.0.1", "--port", str(self.port)]
            return [sys.executable, *target, *STOCK_OPTIONS]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [sys.executable, "manage.py", "serve", "--server", self.kind, *address]

    def _wait_until_it_answers(self):
        # Port 0 is known only once the server says which it took.
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
            if said := re.findall(r"serving on http://\S+?:(\d+)/", self.log)[self.starts - 1 : self.starts]:
                self.port = int(said[0])
            if self.port and self._answers():
                return
            assert time.monotonic() < give_up, f"the server does not answer:\n{self.log}"
            time.sleep(0.05)

    def _answers(self):
        try:
            return httpx.get(f"{self.url}/api/v1/server/", timeout=30).status_code == 200
        except httpx.TransportError:
            return False


def start_server(folder, *, environment=None, database=None, kind="daphne", port=0):
    """Start a server; the caller stops or kills it.

    Args:
        folder: for its data, key and logs.
        environment: further settings, such as {"QFLARE_PUBLIC_DASHBOARD": "1"}.
        database: a migrated SQLite file; without one (and without DATABASE_URL in `environment`) a new one is made.
        kind: `daphne` or `uvicorn` (manage.py serve, with its coordinator), or `stock uvicorn` (the application alone).
        port: 0 takes a free one; the stock command does not say which, so it is told one that was just free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"QFLARE_DATA_DIR": str(folder), "REDIS_URL": "", **(environment or {})}
    if database is None and "DATABASE_URL" not in settings:
        database = folder / "qflare.sqlite3"
        if not database.exists():
            shutil.copy(_migrated_database(), database)
    if database is not None:
        settings["DATABASE_URL"] = f"sqlite:///{database}"
    static = folder / "static"
    if not static.exists():
        shutil.copytree(collected_static(), static)
    return Server(folder, settings, kind, port or (free_port() if kind == STOCK else 0)).start()


@functools.cache
def _prepared():
    """A folder of this test run with a migrated database and collected static files, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="qflare-tests-"))
    environment = {**os.environ, "QFLARE_DATA_DIR": str(folder), "DATABASE_URL": "", "REDIS_URL": ""}
    for arguments in (
        ["migrate", "-v0"],
        ["shell", "-v0", "-c", "from qflare.static import collect_if_stale as c; c()"],
    ):
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, check=True)
    return folder


def _migrated_database():
    return _prepared() / "qflare.sqlite3"


def collected_static():
    return _prepared() / "static"
