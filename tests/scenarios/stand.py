"""A stand for one test: servers of one kind on one channel layer, and the proof that nothing is left in them."""

import os
import time
from pathlib import Path

import redis
from django.conf import settings
from django.db import connection

from fl.events import open_stream
from tests.builders import person
from tests.realtime.acts import cookie_of
from tests.realtime.raw import RawClient, drop_all
from tests.realtime.servers import Server
from tests.scenarios.control import OF_EACH_CONNECTION, Asking
from tests.scenarios.crowd import leave_all

GIVE_UP_SECONDS = 60
BRISK = {
    "QFLARE_RECHECK_SECONDS": "0.3",
    "QFLARE_POLL_SECONDS": "0.1",
    "QFLARE_CLOCK_SECONDS": "0.2",
    "QFLARE_STATISTICS_SECONDS": "0.2",
    "QFLARE_HANDSHAKES_PER_SECOND": "10000",
}
"""What is worth waiting for comes soon. Nobody is ended for being slow to answer, as a busy machine would have it."""
HEARTBEAT_SECONDS = 1.0
SCALED = {
    "QFLARE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "QFLARE_LEASE_SECONDS": "3",
    "QFLARE_PRESENCE_GRACE_SECONDS": "2",
    "QFLARE_PING_SECONDS": "1.5",
    "QFLARE_PONG_SECONDS": "0.8",
}
"""For scenarios of who is there and who is not: a heartbeat is a second, and all else in proportion."""


class LiveServer(Server):
    """A server that the nest has started, and that answers to tests (see `control`)."""

    def __init__(self, nest, folder, environment, kind):
        super().__init__(folder, environment, kind, port=0)
        self._nest = nest
        self.asking = None
        self.before = None
        """What it had before anybody came."""

    def start(self):
        self.starts += 1
        log = self.folder / f"server-{self.starts:03d}.log"
        log.touch()
        self.process = self._nest.hatch(self._command()[2:], environment=self.environment, log=log)
        self._wait_until_it_answers()
        self.asking = Asking(self.process.pid)
        # The first socket lets the hub come to be, and `warm_up` the rest.
        first = RawClient(self.port, "/ws", origin=self.url)
        first.text()
        self.ask("warm_up")
        first.drop()
        self.before = self._settled()
        return self

    def ask(self, command, **arguments):
        """Call a command in the server, and return what it returns."""
        return self.asking.ask(command, **arguments)

    def manage(self, *arguments):
        """Run a management command on the same database and layer, to its end."""
        log = self.folder / "manage.log"
        ended = self._nest.hatch(arguments, environment=self.environment, log=log).wait(GIVE_UP_SECONDS)
        assert ended == 0, log.read_text()

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def remains(self):
        """Return what there is of all that connections bring with them."""
        return {**self.ask("remains"), "sockets": self.sockets(), "files": self._files()}

    def assert_clean(self):
        """Wait until there is what there was before anybody came, and no more."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        fewest = Fewest()
        while left := more_than(self.before, fewest.of(self.remains())):
            assert time.monotonic() < give_up, f"something is left behind: {left}"
            time.sleep(0.02)

    def _settled(self):
        """Return what there is when nobody is connected and nothing is under way."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            now = self.remains()
            is_still = now | {"passing": {}} == self.remains() | {"passing": {}}
            if now["sockets"] == 1 and has_only(0, now) and is_still:
                return now
            assert time.monotonic() < give_up, now
            time.sleep(0.02)

    def sockets(self):
        """Count sockets at the server's port: that which listens, and those of clients."""
        port = f":{self.port:04X}"
        rows = [line.split() for line in Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]]
        ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port)}
        return sum(name in ours for name in self._open())

    def _files(self):
        """Return files that are open, but for the database and the log, which are open for as long as it runs."""
        return sorted(name for name in self._open() if name.startswith(str(self.folder)) and not name.endswith(".log"))

    def _open(self):
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                yield str(entry.readlink())
            except FileNotFoundError:
                continue

    def _wait_until_it_answers(self):
        give_up = time.monotonic() + GIVE_UP_SECONDS
        before = self.log.count("serving on ") if self.starts > 1 else 0
        while self.log.count("serving on ") <= before:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < give_up, f"the server does not listen:\n{self.log}"
            time.sleep(0.01)
        self.port = int(self.log.rpartition("serving on http://127.0.0.1:")[2].partition("/")[0])


class Stand:
    """Servers of one kind on one layer, over the test's own database: `stand.start(name, QFLARE_…="…")`.

    Attributes:
        redis: a RedisServer of the test's own, where the scenario wants one.
    """

    def __init__(self, cell, nest, folder, *, redis_url="", redis_server=None):
        self.cell = cell
        self.kind, self.layer = cell
        self.redis = redis_server
        self.redis_url = redis_server.url if redis_server else redis_url
        self.prefix = f"stand{os.urandom(6).hex()}"
        self.folder = folder
        self.servers = []
        self._nest = nest
        # It is there from the beginning, so that whoever watches knows its epoch.
        open_stream("system")

    def start(self, name="anna", **changes):
        """Start a server with these settings."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        environment = {
            **BRISK,
            "DJANGO_SETTINGS_MODULE": "tests.scenarios.settings",
            "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
            "QFLARE_DATA_DIR": str(folder),
            "QFLARE_SECRET_KEY": settings.SECRET_KEY,
            "REDIS_URL": self.redis_url,
            "QFLARE_CHANNEL_LAYER": self.layer if self.redis_url else "",
            "SCENARIO_ACTS": acts(),
            "SCENARIO_LAYER": self.layer,
            "QFLARE_REDIS_PREFIX": self.prefix,
            **changes,
        }
        server = LiveServer(self._nest, folder, environment, self.kind)
        self.servers.append(server)
        return server.start()

    def cookie(self, role="admin"):
        """Return the cookie of a person who has just signed in."""
        return cookie_of(person(f"{role}-{os.urandom(4).hex()}", role))

    def stop(self):
        """See to it that nothing is left in the servers that still run, then kill them and read what they said."""
        leave_all()
        drop_all()
        try:
            for server in self.servers:
                if server.before and server.runs:
                    server.assert_clean()
            assert self._groups_on_redis() == []
        finally:
            for server in self.servers:
                server.kill()
                if server.asking:
                    server.asking.close()
        for server in self.servers:
            assert "Traceback" not in server.log, server.log
            assert "Unhandled" not in server.log, server.log

    def _groups_on_redis(self):
        """Return the groups that a layer on Redis still has members of."""
        if not self.redis_url:
            return []
        with redis.Redis.from_url(self.redis_url) as client:
            # Members of the one layer are subscribers, those of the other are kept in sets.
            found = [*client.pubsub_channels(f"{self.prefix}__group__*"), *client.keys(f"{self.prefix}:group:*")]
        # Each process is in one more, for as long as it runs: that of its watch.
        return [name.decode() for name in found if b"watch." not in name]


class Fewest:
    """How few of each kind that comes and goes there were at any look: of what is left behind there always are some."""

    def __init__(self):
        self._seen = None

    def of(self, remains):
        """Look, and return what remains with the fewest of what passes."""
        now = remains["passing"]
        seen = now if self._seen is None else self._seen
        self._seen = {kind: min(count, now.get(kind, 0)) for kind, count in seen.items()}
        return {**remains, "passing": self._seen}


def more_than(before, now):
    """Return what there is that there was not before, or not so many of: name → (before, now).

    Of tasks and objects fewer are as good: some come and go with what a process does all the time. Of objects that pass
    none may be left at all, so that it does not matter how many there happened to be before.
    """
    more = {}
    for name, what in now.items():
        was = dict.fromkeys(what, 0) if name == "passing" else before[name]
        if isinstance(what, dict):
            more |= {kind: (was.get(kind, 0), count) for kind, count in what.items() if count > was.get(kind, 0)}
        elif what != was:
            more[name] = was, what
    return more


def has_only(connections, remains):
    """Say whether all is forgotten of those who have left, with so many still there."""
    objects = remains["objects"]
    return all(objects.get(name, connections) == connections for name in OF_EACH_CONNECTION)


def acts():
    """Return the modules with commands, for a server to load."""
    return " ".join(f"tests.scenarios.{path.stem}" for path in sorted(Path(__file__).parent.glob("acts_*.py")))
