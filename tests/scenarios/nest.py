"""Starts servers in a fraction of the time: a process that has loaded their libraries forks one for each start.

It has loaded no line of QFLARE, nor read a setting: from there on each start is that of `manage.py serve`.

    python -m tests.scenarios.nest      lines of JSON come in by the standard input and are answered on the output:
    {"start": {"environment": {…}, "arguments": […], "log": path, "folder": path}}  →  its process id
    {"reap": process id}                                                            →  its exit code
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIBRARIES = [
    "autobahn.twisted.websocket",
    "autobahn.websocket.protocol",
    "channels.generic.websocket",
    "channels.layers",
    "channels_redis.core",
    "channels_redis.pubsub",
    "corsheaders",
    "cryptography.hazmat.primitives.asymmetric.mldsa",
    "django.contrib.admin",
    "django.contrib.auth.hashers",
    "django.contrib.staticfiles.storage",
    "django.core.handlers.asgi",
    "django.core.management",
    "django.db.backends.sqlite3.base",
    "django.template.backends.django",
    "django.test",
    "django.views",
    "django_filters",
    "drf_spectacular",
    "h11",
    "jsonschema",
    "msgspec",
    "numpy.random",
    "redis.asyncio",
    "rest_framework",
    "safetensors.torch",
    "torch",
    "twisted.internet.asyncioreactor",
    "twisted.internet.endpoints",
    "twisted.internet.ssl",
    "twisted.web.http",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.websockets_impl",
    "uvicorn.server",
    "whitenoise.storage",
    "yaml",
]


class Nest:
    """A test run's end: `hatch` starts a server, and returns it as a process."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.scenarios.nest"],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._turn = threading.Lock()
        atexit.register(self.close)

    def ask(self, **question):
        with self._turn:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def hatch(self, arguments, *, environment, log):
        """Start `manage.py` with these arguments."""
        started = {"arguments": arguments, "environment": environment, "log": str(log), "folder": str(ROOT)}
        return Hatched(self, self.ask(start=started))

    def close(self):
        atexit.unregister(self.close)
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Hatched:
    """A process that the nest has started, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, nest, pid):
        self.pid = pid
        self.returncode = None
        self._nest = nest
        self._handle = os.pidfd_open(pid)

    def poll(self):
        """Return the exit code, or None while it runs."""
        return self._reap() if self._has_ended(0) else None

    def wait(self, timeout=None):
        """Wait for the end, and return the exit code."""
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(["manage.py"], timeout)
        return self._reap()

    def send_signal(self, number):
        if self.returncode is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def _has_ended(self, timeout):
        if self.returncode is not None:
            return True
        poller = select.poll()  # `select` cannot tell of it where a thousand sockets are open
        poller.register(self._handle, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))

    def _reap(self):
        if self.returncode is None:
            self.returncode = self._nest.ask(reap=self.pid)
            os.close(self._handle)
        return self.returncode


def main():
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "twisted.internet.reactor" not in sys.modules  # it would be one for all
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        if "reap" in question:
            _, status = os.waitpid(question["reap"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                return become(**question["start"])
        print(json.dumps(answer), flush=True)
    return None


def become(arguments, environment, log, folder):
    """Be the process that was asked for, to its end."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, source in enumerate((nowhere, words, words)):
        os.dup2(source, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    sys.argv = ["manage.py", *arguments]
    runpy.run_path("manage.py", run_name="__main__")


if __name__ == "__main__":
    main()
