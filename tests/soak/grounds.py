"""What is soaked: three servers, two coordinators and a fleet over PostgreSQL and Redis; each is ended and restarted.

Every interval and limit is the product's own.
"""

import itertools
import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from tests.journeys.house import enroll_all, prepare, sign_in
from tests.journeys.installation import KINDS, Installation
from tests.journeys.programs import Program, clean_environment
from tests.journeys.waiting import wait_for
from tests.scenarios.control import Asking
from tests.soak.watch import Failure

DEVICES = 3
PEOPLE = 25
"""A crowd of a thousand is 40 sockets for each, with one server alone; a person may have 100."""
STOP_SECONDS = 60.0
BEGIN_SECONDS = 120.0
END_SECONDS = 30.0
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.soak.settings", "SCENARIO_LAYER": "pubsub", "PYTHONUNBUFFERED": "1"}
COMMAND = "manage.py"


class HatchedProgram:
    """A `manage.py` that the nest has started, with the methods of `Program`."""

    def __init__(self, nest, name, arguments, *, log, environment):
        self.name = name
        self.log = log
        self.born = time.monotonic()
        self._process = nest.hatch([str(one) for one in arguments[1:]], environment=environment, log=log)
        self.pid = self._process.pid
        self.asking = Asking(self.pid)
        self._turn = threading.Lock()

    def __str__(self):
        return f"{self.name} (process {self.pid}, exit code {self._poll()})"

    @property
    def is_running(self):
        return self._poll() is None

    def _poll(self):
        # Of several threads that look, one alone may take the exit code.
        with self._turn:
            return self._process.poll()

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def last_words(self, lines=30):
        return "\n".join(self.said().splitlines()[-lines:])

    def send(self, number):
        self._process.send_signal(number)

    def wait(self, seconds=STOP_SECONDS):
        give_up = time.monotonic() + seconds
        while (code := self._poll()) is None:
            if time.monotonic() > give_up:
                raise AssertionError(f"{self} has not ended after {seconds:g} s\n{self.last_words()}")
            time.sleep(0.02)
        return code

    def finish(self):
        """Wait for the end that it was asked for, and make it where it does not come."""
        try:
            self.wait(END_SECONDS)
        except AssertionError:
            self.send(signal.SIGKILL)
            self.wait()
        self.asking.close()


class OwnProgram(Program):
    """A program that is started as it is."""

    def finish(self):
        """Wait for the end that it was asked for, and make it where it does not come."""
        try:
            self.wait(END_SECONDS)
        except AssertionError:
            self.kill()


@dataclass
class Grounds(Installation):
    """The installation, and how its parts are ended and come back."""

    nest: object = None
    watch: object = None
    postgres: object = None
    redis: object = None
    sessions: list[str] = field(default_factory=list)
    restarts: Counter = field(default_factory=Counter)
    born: dict[str, Counter] = field(default_factory=dict)
    """Server → its open files before anybody came."""
    _numbers: object = field(default_factory=itertools.count)

    def __exit__(self, *_):
        for program in self.running:
            program.send(signal.SIGTERM)
        for program in self.programs:
            if program.is_running:
                program.finish()

    # ── the beginning ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name, *arguments, **environment):
        """Start a program with the product's own settings."""
        environment = clean_environment(**(self.settings | {"QFLARE_DATA_DIR": str(self.data)} | environment))
        log = self.folder / f"{next(self._numbers):03}-{name}.log"
        if arguments[0] == COMMAND:
            program = HatchedProgram(self.nest, name, arguments, log=log, environment=environment)
        else:
            program = OwnProgram(name, arguments, log=log, environment=environment)
        self.programs.append(program)
        return program

    def begin(self):
        """Set all up and start all parts; returns when all are there."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE soak")
        tokens = prepare(self)[:DEVICES]
        self.begin_server("anna")
        people = self.start("people", COMMAND, "shell", "-v0", "-c", _call("people", f"make({PEOPLE})"))
        self.wait_until_begun("anna")
        for name in KINDS:
            if name != "anna":
                self.begin_server(name)
        for name in ("xeni", "yuri"):
            self.begin_coordinator(name)
        assert people.wait(BEGIN_SECONDS) == 0, people.said()
        self.sessions = re.findall(r"session (\w+)", people.said())
        enroll_all(self, tokens)
        self.session = sign_in(self)
        self.begin_fleet()
        self.wait_until_begun(*KINDS, "xeni", "yuri")
        for name in KINDS:
            self.answer_of(name, "/api/v1/health/")
            self.born[name] = self.open_files(name)

    def begin_fleet(self):
        """Start the devices, and wait until each is connected anew."""
        query = "SELECT connection_id FROM fl_presencelease WHERE closed_at IS NULL"
        before = set(self.values(query))
        fleet = self.parts["fleet"] = self.fleet(DEVICES, task="linear")
        wait_for("the fleet is there", lambda: len(set(self.values(query)) - before) >= DEVICES, needs=[fleet])

    def begin_publisher(self, rate, burst):
        """Start the program that records events."""
        call = _call("publish", f"main({rate}, {burst})")
        self.parts["publisher"] = self.start("publisher", COMMAND, "shell", "-v0", "-c", call)
        publisher = self.parts["publisher"]
        wait_for("the publisher is there", lambda: "publishing" in publisher.said(), needs=[publisher])

    # ── restarts ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def restart(self, part, way, seconds):
        """End a part in a way, let it be away for so long, start it again, and wait until it is there."""
        self.restarts[part, way] += 1
        self.watch.away(part)
        try:
            if part == "redis":
                self._restart_redis(way, seconds)
            elif part == "postgres":
                self._restart_postgres(way, seconds)
            else:
                self._restart_program(part, way, seconds)
        finally:
            self.watch.back(part)

    def _restart_redis(self, way, seconds):
        if way == "SIGTERM":
            self.redis.process.terminate()
            self.redis.process.wait(STOP_SECONDS)
        self.redis.stop()
        pause(seconds)
        self.redis.start()

    def _restart_postgres(self, way, seconds):
        # Its own words for it: `immediate` kills all its processes, `fast` ends them in order.
        if way == "SIGKILL":
            self.postgres.stop()
        else:
            self.postgres.stop("fast")
        pause(seconds)
        self.postgres.start()

    def _restart_program(self, part, way, seconds):
        old = self.parts[part]
        if not old.is_running:
            raise Failure(f"{old} had ended by itself:\n{old.last_words()}")
        old.send(getattr(signal, way))
        code = old.wait(STOP_SECONDS)
        if way == "SIGTERM" and code != 0:
            self.watch.fault(f"{old} ended with {code} after SIGTERM")
        self.programs.remove(old)
        if isinstance(old, HatchedProgram):
            old.asking.close()
        pause(seconds)
        if part == "fleet":
            self.begin_fleet()
            return
        (self.begin_server if part in KINDS else self.begin_coordinator)(part)
        self.wait_until_begun(part)

    # ── what is true ──────────────────────────────────────────────────────────────────────────────────────────────────

    def answer_of(self, name, path):
        with httpx.Client(trust_env=False, timeout=30) as browser:
            return browser.get(f"http://127.0.0.1:{self.ports[name]}{path}")

    def living(self):
        """Return the names of the servers that are there."""
        return [name for name in KINDS if not self.watch.is_away(name)]

    def open_files(self, name):
        """Count what a server has open, by kind: sockets at its port, other sockets, files, and all else."""
        program, found = self.parts[name], Counter()
        port = f":{self.ports[name]:04X}"
        rows = [line.split() for line in Path(f"/proc/{program.pid}/net/tcp").read_text().splitlines()[1:]]
        ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port)}
        for entry in Path(f"/proc/{program.pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue
            if target in ours:
                found["sockets at its port"] += 1
            elif target.startswith("socket:"):
                found["other sockets"] += 1
            else:
                found["files" if target.startswith("/") else "pipes and such"] += 1
        return found

    def rss(self, name):
        """Return how many bytes of memory a server has."""
        status = Path(f"/proc/{self.parts[name].pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def heads(self):
        """Return where each stream stands."""
        return {row["name"]: row["head"] for row in self.rows("SELECT name, head FROM fl_stream")}

    def logs(self):
        """Return the logs of all programs there have been."""
        return sorted(self.folder.glob("*.log"))


def _call(module, call):
    return f"from tests.soak import {module}; {module}.{call}"


def pause(seconds):
    """Let a part be away; this is what the soak is about, and waits for nothing."""
    threading.Event().wait(seconds)
