"""A house of several processes: three servers and two coordinators, over PostgreSQL and Redis; and who listens there.

Each part can be killed and started again, while the others go on.
"""

import json
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import httpx
import psycopg
from psycopg.rows import dict_row
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge.protocol import PROTOCOL, client
from tests.journeys.house import House, enroll_all, prepare, sign_in
from tests.journeys.waiting import GIVE_UP_SECONDS, wait_for
from tests.services.ports import free_port

KINDS = {"anna": "daphne", "bert": "daphne", "carl": "uvicorn"}
"""The servers, and what each runs on."""
COORDINATORS = ("xeni", "yuri")
HEARTBEAT_SECONDS = 1.0
LEASE_SECONDS = 3.0
POLL_SECONDS = 0.5
RECHECK_SECONDS = 0.5
TRUST_SECONDS = 5.0
SETTINGS = {
    "QFLARE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "QFLARE_LEASE_SECONDS": str(LEASE_SECONDS),
    "QFLARE_POLL_SECONDS": str(POLL_SECONDS),
    "QFLARE_RECHECK_SECONDS": str(RECHECK_SECONDS),
    "QFLARE_TRUST_SECONDS": str(TRUST_SECONDS),
    "QFLARE_DATABASE_WAIT_SECONDS": "0.5",
    # Coordinators die at one moment, but only while there is no mark (see `crash`).
    "DJANGO_SETTINGS_MODULE": "tests.journeys.crash_settings",
    "JOURNEY_CRASH_AT": "aggregating committed",
}


@dataclass
class Installation(House):
    """Several servers and coordinators over one database; addressed at the first server unless told otherwise."""

    database: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    parts: dict[str, object] = field(default_factory=dict)
    """The newest process of each name."""

    def at(self, name):
        """Return the same installation, addressed at another server."""
        return replace(self, port=self.ports[name])

    def __exit__(self, *error):
        # All at once: together they take as long as the slowest.
        for program in self.running:
            program.send(signal.SIGTERM)
        super().__exit__(*error)

    # ── its parts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_server(self, name):
        """Start a server, again on the same port, and do not wait for it."""
        arguments = ("manage.py", "serve", "--no-coordinator", "--server", KINDS[name], "--port", self.ports[name])
        self.parts[name] = self.start(name, *arguments, QFLARE_DATA_DIR=str(self.data))

    def begin_coordinator(self, name):
        """Start a coordinator, and do not wait for it."""
        self.parts[name] = self.start(name, "manage.py", "coordinate", QFLARE_DATA_DIR=str(self.data))

    def wait_until_begun(self, *names):
        for name in names:
            said = "coordinating" if name in COORDINATORS else "serving on"
            wait_for(f"{name} is there", lambda n=name, s=said: s in self.parts[n].said(), needs=[self.parts[name]])

    @property
    def mark(self):
        """While this file is there, no coordinator dies."""
        return self.folder / "no-crash"

    # ── what is true ──────────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, query, *values):
        """Read the database."""
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(query.replace("?", "%s"), values).fetchall()

    def events_of(self, stream, event):
        """Return the data of a stream's events of one kind, in order."""
        query = "SELECT data FROM fl_event WHERE stream_id = ? AND event = ? ORDER BY seq"
        return [json.loads(data) for data in self.values(query, stream, event)]

    def told_offline(self):
        """Return the names of devices that people were told are offline."""
        told = self.events_of("system", "device_status")
        return [data["name"] for data in told if data["presence"] == "offline"]

    def lease(self, device_id):
        """Return a device's lease, or None where it is offline."""
        return next(iter(self.rows("SELECT * FROM fl_presencelease WHERE device_id = ?", device_id)), None)

    def aggregations(self, run_id):
        """Return what was told of a run's aggregations: (round, phase)."""
        return [(data["round"], data["phase"]) for data in self.events_of(f"run:{run_id}", "model_aggregation")]

    # ── people and programs ───────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, path):
        """Ask for something as a signed-in person, and return whatever is answered."""
        with httpx.Client(trust_env=False, timeout=GIVE_UP_SECONDS) as browser:
            return browser.get(self.address + path, headers={"Cookie": f"sessionid={self.session}"})

    def say(self, message):
        """Broadcast to dashboards: one durable event, told by the server that is addressed."""
        self.post("/api/v1/broadcasts/", {"message": message, "audiences": ["dashboard"]})

    def listener(self, since=None):
        """Open a dashboard's socket to the server that is addressed."""
        return Listener(self, since or {})


class Listener:
    """A dashboard's socket that keeps the durable events it was told, and makes sure that none is missing or twice."""

    def __init__(self, house, since):
        self.house = house
        self.heard = {}
        """Stream → its events (seq, name, data), in the order in which they came."""
        query = "&".join(f"since={stream}:{epoch}:{seq}" for stream, (epoch, seq) in since.items())
        self._last = {stream: seq for stream, (_, seq) in since.items()}
        self._opening = connect(
            f"{house.address.replace('http', 'ws')}/ws/dashboard?{query}",
            subprotocols=[PROTOCOL],
            additional_headers={"Cookie": f"sessionid={house.session}", "Origin": house.address},
            ssl=house.trust,
            proxy=None,
            max_queue=None,
        )

    def __enter__(self):
        self._socket = self._opening.__enter__()
        assert json.loads(self._socket.recv(GIVE_UP_SECONDS))["event"] == "welcome"
        return self

    def __exit__(self, *error):
        self._opening.__exit__(*error)

    def read_until(self, event, seconds=GIVE_UP_SECONDS, **fields):
        """Take frames until an event of this name has these fields; return its data."""
        while True:
            for name, data in self._take(seconds):
                if name == event and all(data.get(field) == value for field, value in fields.items()):
                    return data

    def read_until_said(self, message):
        return self.read_until("broadcast", message=message)

    def read_to_the_end(self):
        """Take all that comes until the socket ends; return the server's code, or None where it said nothing."""
        try:
            while True:
                self._take(GIVE_UP_SECONDS)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def read(self):
        """Take one frame."""
        self._take(GIVE_UP_SECONDS)

    def last(self, stream):
        """Return the newest event's seq that was told of a stream."""
        return self._last.get(stream, 0)

    def positions(self):
        """Return where this listener stands in each stream: epoch and seq."""
        epochs = {row["name"]: row["epoch"] for row in self.house.rows("SELECT name, epoch FROM fl_stream")}
        return {stream: (epochs[stream], seq) for stream, seq in self._last.items()}

    def _take(self, seconds):
        """Take a frame; return the events that came with it."""
        frame = json.loads(self._socket.recv(seconds))
        data = frame["data"]
        if frame["event"] == "recent_events":
            self._last.setdefault(data["stream"], data["since"])
            return [self._keep(data["stream"], logged) for logged in data["events"]]
        if "seq" in frame:
            return [self._keep(frame["stream"], frame)]
        return [(frame["event"], data)]

    def _keep(self, stream, logged):
        # A stream that begins while one listens is told from its first event.
        assert logged["seq"] == self._last.get(stream, 0) + 1, f"{stream} goes on with {logged['seq']}"
        self._last[stream] = logged["seq"]
        self.heard.setdefault(stream, []).append((logged["seq"], logged["event"], logged["data"]))
        return logged["event"], logged["data"]


@contextmanager
def beating(*devices):
    """Let handmade devices send their heartbeats while the block runs."""
    ended = threading.Event()

    def beat():
        while not ended.wait(HEARTBEAT_SECONDS / 4):
            for device in devices:
                if not device.token:
                    continue  # the handshake comes first
                try:
                    device.say(client.encode_message(client.Heartbeat()))
                except ConnectionClosed:
                    continue  # who reads this socket sees why

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def installed(folder, database, redis):
    """Set an installation up with all its parts running; `database`: a `PostgresServer`, `redis`: a `RedisServer`."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE journey")
    url = f"{database.url.rpartition('/')[0]}/journey"
    folder.mkdir(parents=True)
    settings = SETTINGS | {"DATABASE_URL": url, "REDIS_URL": redis.url, "JOURNEY_MARK": str(folder / "no-crash")}
    ports = {name: free_port() for name in KINDS}
    with Installation(folder, settings=settings, database=url, ports=ports, port=ports["anna"]) as house:
        house.mark.touch()
        tokens = prepare(house)
        # The first one makes the keys and collects the static files; the others find them.
        house.begin_server("anna")
        house.wait_until_begun("anna")
        for name in KINDS:
            if name != "anna":
                house.begin_server(name)
        for name in COORDINATORS:
            house.begin_coordinator(name)
        enroll_all(house, tokens)
        house.session = sign_in(house)
        house.wait_until_begun(*KINDS, *COORDINATORS)
        yield house
