"""What a journey is made in: a data folder, a live server over it, devices that are enrolled there, and a person."""

import os
import re
import shutil
import sqlite3
import ssl
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
from websockets.sync.client import connect

from edge.enroll import enroll, read_token
from edge.http import Doors, Server
from edge.protocol import PROTOCOL
from edge.protocol.server import decode_frame
from edge.store import Home
from tests.journeys.prepare import ADMIN, PASSWORD
from tests.journeys.programs import Program, clean_environment
from tests.journeys.waiting import GIVE_UP_SECONDS, wait_for
from tests.services.certificates import Certificates
from tests.services.ports import free_port

TASKS = "tests.journeys.tasks:Patient"
QUICK = {
    # A claim of a coordinator that was killed lapses fast, and the next looks often.
    "QFLARE_CLAIM_SECONDS": "1",
    "QFLARE_CLOCK_SECONDS": "0.2",
    "QFLARE_PRESENCE_GRACE_SECONDS": "1",
    "QFLARE_TASKS": TASKS,
}
DEVICES = 5


@dataclass
class House:
    """One installation: what a test starts in it ends with it.

    Attributes:
        folder: holds `data` (the server's), `devices` (a folder each), and the programs' logs.
        session: a person's cookie.
        certificates: what a server or a proxy shows of itself, and clients then trust alone; without, all is plain.
        front: the port at which it is addressed, where that is not the server's own.
    """

    folder: Path
    session: str = ""
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    server: Program | None = None
    certificates: Certificates | None = None
    front: int | None = None
    programs: list[Program] = field(default_factory=list)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Devices first, so that they say goodbye to a server that still listens.
        for program in reversed(self.programs):
            program.stop()
            print(f"── {program}\n{program.last_words()}")

    @property
    def data(self):
        return self.folder / "data"

    @property
    def running(self):
        return [program for program in self.programs if program.is_running]

    @property
    def address(self):
        scheme, host = ("https", "localhost") if self.certificates else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.front or self.port}"

    @property
    def trust(self):
        """What clients of Python trust; None where nothing is encrypted."""
        if self.certificates is None:
            return None
        trust = self.certificates.trust
        # The synchronous client of websockets reads and writes in two threads. OpenSSL takes that ill now and then
        # while a server hands out tickets, which in TLS 1.3 is after the handshake: one in thousands waits for ever.
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        return trust

    # ── programs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name, *arguments, **environment):
        """Start a program with this house's settings and these."""
        environment = clean_environment(**(QUICK | self.settings | environment))
        log = self.folder / f"{len(self.programs)}-{name}.log"
        program = Program(name, arguments, log=log, environment=environment)
        self.programs.append(program)
        return program

    def serve(self, *options, **environment):
        """Start the server, again on the same port; returns when it listens."""
        command = ("manage.py", "serve", "--port", self.port, *options)
        self.server = self.start("server", *command, QFLARE_DATA_DIR=str(self.data), **environment)
        wait_for("the server listens", lambda: "serving on" in self.server.said(), needs=[self.server])
        return self.server

    def home(self, number):
        return self.folder / "devices" / f"device-{number:04}"

    def device(self, number, *, of=DEVICES, task="patient", options=(), **environment):
        """Start one device, with its piece of the examples; `of`: how many pieces there are."""
        return self.start(
            f"device-{number}",
            *("-m", "edge", "run", "--home", self.home(number), "--server", self.address, "--task", task),
            *("--partition", f"iid:{number - 1}/{of}", *options),
            *(("--ca", self.certificates.authority) if self.certificates else ()),
            **environment,
        )

    def fleet(self, count, *, of=None, task="patient", partition="iid:0/{of}", **environment):
        """Start devices 1 to `count` in one process; their pieces are those that single devices would have."""
        return self.start(
            "fleet",
            *("-m", "edge", "fleet", self.address, "--devices", count, "--home", self.folder / "devices"),
            *("--task", task, "--partition", partition.format(of=of or count), "--workers", count, "--json"),
            **environment,
        )

    # ── holding devices ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def hold(self):
        """While this file is there, devices that were told of it train no further than a batch."""
        return self.folder / "hold"

    @contextmanager
    def held(self):
        """Hold the devices in the block, or until they are let go."""
        self.hold.touch()
        try:
            yield
        finally:
            self.let_go()

    def let_go(self):
        self.hold.unlink(missing_ok=True)

    # ── what is true ──────────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, query, *values):
        """Read the server's database, as it is on the disk."""
        with closing(sqlite3.connect(self.data / "qflare.sqlite3", timeout=60)) as database:
            database.execute("PRAGMA query_only=ON")
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def values(self, query, *values):
        """Read the first column."""
        return [next(iter(row.values())) for row in self.rows(query, *values)]

    def run(self, run_id):
        (row,) = self.rows("SELECT * FROM fl_run WHERE id = ?", run_id)
        return row

    def rounds(self, run_id):
        return self.rows("SELECT * FROM fl_round WHERE run_id = ? ORDER BY number", run_id)

    def models(self, run_id):
        return self.rows("SELECT * FROM fl_globalmodel WHERE run_id = ? ORDER BY version", run_id)

    def assignments(self, run_id, number=None):
        return self.rows(
            "SELECT a.*, r.number, d.name FROM fl_assignment a JOIN fl_round r ON r.id = a.round_id"
            " JOIN fl_device d ON d.id = a.device_id WHERE r.run_id = ? AND r.number = coalesce(?, r.number)"
            " ORDER BY r.number, a.cohort_index",
            run_id,
            number,
        )

    def updates(self, run_id):
        return self.rows(
            "SELECT u.*, a.device_id, r.number FROM fl_update u JOIN fl_assignment a ON a.id = u.assignment_id"
            " JOIN fl_round r ON r.id = a.round_id WHERE r.run_id = ? ORDER BY u.assignment_id",
            run_id,
        )

    def holes(self):
        """Return the streams whose events are not numbered from 1 to their heads."""
        return self.rows(
            "SELECT s.name, s.head, count(e.id) FROM fl_stream s LEFT JOIN fl_event e ON e.stream_id = s.name"
            " GROUP BY s.name HAVING count(e.id) != s.head OR coalesce(min(e.seq), 1) != 1"
            " OR coalesce(max(e.seq), 0) != s.head"
        )

    # ── conditions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def wait_until_online(self, *numbers):
        def all_there():
            online = self.values(
                "SELECT d.name FROM fl_presencelease p JOIN fl_device d ON d.id = p.device_id WHERE p.closed_at IS NULL"
            )
            return {name_of(number) for number in numbers} <= set(online)

        wait_for(f"devices {numbers} are online", all_there, needs=self.running)

    def wait_for_run(self, run_id, state="completed", **options):
        """Wait until a run has ended, and make sure that it ended so."""
        ended = ("completed", "failed", "stopped")
        options.setdefault("needs", self.running)
        wait_for(f"run {run_id} ends", lambda: self.run(run_id)["state"] in ended, **options)
        assert (self.run(run_id)["state"], self.run(run_id)["reason"]) == (state, "")

    def wait_for_assignment(self, run_id, number, device, state):
        """Wait until a device's part of a round is in a state, and return it."""

        def found():
            rows = self.assignments(run_id, number)
            return next((row for row in rows if row["name"] == name_of(device) and row["state"] == state), None)

        return wait_for(f"device {device} is {state} in round {number}", found, needs=[self.server])

    # ── a person ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, path, **options):
        """Ask as a signed-in person; the answer is a success."""
        return self.ask("GET", path, **options)

    def post(self, path, body=None):
        """Command as a signed-in person; the command is done."""
        return self.ask("POST", path, json={} if body is None else body).json()

    def ask(self, method, path, **options):
        cookies = {"sessionid": self.session, "csrftoken": CSRF}
        headers = {"X-CSRFToken": CSRF, "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        headers["Referer"] = self.address  # which Django wants over https
        headers |= options.pop("headers", {})
        with httpx.Client(trust_env=False, verify=self.trust or True, timeout=GIVE_UP_SECONDS) as client:
            answer = client.request(method, self.address + path, headers=headers, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def start_run(self, **plan):
        """Create a run and start it, as a person does; return its id."""
        plan = {"name": "a journey", "task": "patient", "seed": 7, "cohort_wait_seconds": 60.0} | plan
        run = self.post("/api/v1/runs/", plan)
        self.post(f"/api/v1/runs/{run['id']}/start/")
        return run["id"]

    def stop_runs(self):
        """Stop what has not ended, so that the devices are free."""
        for run_id in self.values("SELECT id FROM fl_run WHERE ended_at IS NULL"):
            self.post(f"/api/v1/runs/{run_id}/stop/")

    def dashboard(self):
        """Open the socket that a dashboard's page opens."""
        return Dashboard(self)


CSRF = "0123456789abcdefghijklmnopqrstuv"
"""A page's token and its cookie need only be the same."""


def name_of(number):
    """Return the name under which a device is enrolled."""
    return f"device-{number}"


class Dashboard:
    """A browser's socket, less the browser: keeps every frame it was sent."""

    def __init__(self, house):
        self.frames = []
        self._opening = connect(
            f"{house.address.replace('http', 'ws')}/ws/dashboard",
            subprotocols=[PROTOCOL],
            additional_headers={"Cookie": f"sessionid={house.session}", "Origin": house.address},
            ssl=house.trust,
            proxy=None,
            max_queue=None,
        )

    def __enter__(self):
        self._socket = self._opening.__enter__()
        return self

    def __exit__(self, *error):
        self._opening.__exit__(*error)

    def read_until(self, condition):
        """Take frames until one fulfils the condition; return it."""
        while True:
            frame = decode_frame(self._socket.recv(GIVE_UP_SECONDS))
            self.frames.append((frame, msgspec.json.decode(frame.data)))
            if condition(*self.frames[-1]):
                return self.frames[-1]


@dataclass(frozen=True)
class Template:
    """A house as it is before anything has happened: enrolled devices, a person who is signed in; copied for each test.

    Copies have the same keys and numbers of devices, so that what they learn is the same bits.
    """

    folder: Path
    session: str

    def copy_to(self, folder, **settings):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.folder / "devices", folder / "devices")
        shutil.copytree(self.folder / "data", folder / "data", ignore=shutil.ignore_patterns("static"))
        # Collected files are replaced, never written into: second names for them are enough.
        shutil.copytree(self.folder / "data" / "static", folder / "data" / "static", copy_function=os.link)
        return House(folder, self.session, settings=settings)


def make_template(folder):
    """Set a house up through its doors: migrate, start, enrol the devices in order, sign in, stop."""
    with House(folder) as house:
        tokens = prepare(house)
        house.serve()
        enroll_all(house, tokens)
        return Template(folder, sign_in(house))


def prepare(house):
    """Make a house's database with an admin; return tokens for its devices."""
    prepared = house.start(
        "prepare",
        *("-m", "tests.journeys.prepare", DEVICES),
        QFLARE_DATA_DIR=str(house.data),
        DJANGO_SETTINGS_MODULE="qflare.settings",
    )
    assert prepared.wait() == 0, prepared.said()
    return re.findall(r"^qfe1\S+$", prepared.said(), re.MULTILINE)


def enroll_all(house, tokens):
    """Enrol the devices in order, by the server that the house is addressed at."""
    with Doors(Server(house.address), None) as doors:
        for number, token in enumerate(tokens, start=1):
            enroll(Home(house.home(number)), doors, read_token(token), name_of(number))


def sign_in(house):
    """Sign in by name and password, as the page does; return the session's cookie."""
    options = {"trust_env": False, "verify": house.trust or True, "timeout": GIVE_UP_SECONDS}
    with httpx.Client(base_url=house.address, headers={"Referer": house.address}, **options) as browser:
        browser.get("/login/").raise_for_status()
        form = {"username": ADMIN, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        answer = browser.post("/login/", data=form)
        assert answer.is_redirect, answer.text
        return browser.cookies["sessionid"]
