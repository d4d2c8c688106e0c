"""Many devices in one warm process, for simulation over the real wire and for load tests.

Each has its own key, handshake, socket, folder and piece of the data; the server cannot tell them from single devices.
They share what a machine has once: the threads that train, the HTTP connections, and the files of weights they fetched.

A model that draws random numbers itself while it trains (dropout) uses a generator that the process has once: with more
than one worker, such trainings are not the same bits each time.
"""

import resource
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.config import DeviceSettings
from edge.connection import Socket, SocketLoop
from edge.device import STOP_SECONDS
from edge.enroll import enroll, read_token
from edge.errors import BadUsage
from edge.http import Doors, Server, trusted_certificates
from edge.jobs import Jobs
from edge.models import WeightsCache
from edge.notes import Note, Tell, tell_nobody
from edge.offers import KnownTask, Offer, know_tasks, load_offer
from edge.partition import Partition
from edge.session import Heard, Session
from edge.store import Home
from edge.summary import Summary
from edge.training import set_torch_threads
from edge.work import DeviceWork, Equipment

NETWORK_THREADS = 12
ENROLMENTS_AT_ONCE = 8


class Fleet:
    """Many devices: `start` returns once they work, `wait` when all are over, and `stop` ends them from any thread.

    Args:
        home: folder with one folder a device, `device-0001` and so on.
        count: how many devices, at least 1.
        settings: of each; `partition` gives the kind, the count and the seed of the cut, and each device takes the
            piece of its own number, beginning again where there are fewer pieces than devices. None: equal pieces.
        tell: told what happens.
        tokens: enrolment tokens, the first for the first device; needed for devices that are not enrolled yet, as is
            `settings.server`.
        workers: how many devices train at the same time, at least 1.
        name: what the devices' names begin with.
        details: tell what each device tells, not sums.
    """

    def __init__(
        self,
        home: Path,
        count: int,
        settings: DeviceSettings,
        tell: Tell = tell_nobody,
        *,
        tokens: Sequence[str] = (),
        workers: int = 1,
        name: str = "fleet",
        details: bool = False,
    ) -> None:
        self._home = Home(home)
        self._homes = [Home(home / f"device-{number:04}") for number in range(1, count + 1)]
        self._names = [f"{name}-{number:04}" for number in range(1, count + 1)]
        self._settings = settings
        self._tell = tell
        self._tokens = tokens
        self._workers = workers
        self._summary = Summary(count, tell, details=details)
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def connected(self) -> int:
        """How many devices are connected now."""
        return self._summary.connected

    def start(self) -> None:
        """Enrol the devices that are not, load what each offers, and begin to work.

        Raises:
            EdgeError: a folder, the address, a task or its data cannot be used, or the server refuses.
        """
        with ExitStack() as resources:
            resources.enter_context(self._home.hold())
            _allow_files(2 * len(self._homes))
            server = self._server()
            certificates = trusted_certificates(server, self._settings.ca)
            set_torch_threads(self._settings.threads)
            equipment = Equipment(
                Jobs(training=self._workers, network=NETWORK_THREADS, on_crash=self._fail),
                Doors(server, certificates, connections=NETWORK_THREADS),
                WeightsCache(self._home.weights),
            )
            resources.callback(equipment.close, STOP_SECONDS)
            self._enroll(equipment.doors)
            tasks = know_tasks(self._settings.tasks)
            loop = SocketLoop(server, certificates)
            resources.callback(loop.stop, STOP_SECONDS)
            members = [self._make(index, tasks, equipment, loop) for index in range(len(self._homes))]
            for member in members:
                resources.callback(member.work.stop)
            loop.start([member.socket for member in members], self._fail)
            self._resources = resources.pop_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the fleet is over, by `stop` or because no device can go on; say whether it is.

        Raises:
            Barred: the server sent all devices away for good; the last one's reason.
        """
        is_over = self._over.wait(seconds)
        if self._failure is not None:
            raise self._failure
        return is_over

    def stop(self) -> None:
        """End training within one batch, let what is on its way arrive, and close the connections."""
        self._resources.close()
        self._over.set()

    def _server(self) -> Server:
        address = self._settings.server
        if address is None:
            address = next((home.account().server for home in self._homes if home.is_enrolled), None)
        if address is None:
            raise BadUsage(
                "The fleet cannot be enrolled",
                "no server is named",
                "Name it: qflare-edge fleet SERVER --devices N ...",
            )
        server = Server(address)
        server.require_safe("The devices' bearer tokens")
        return server

    def _enroll(self, doors: Doors) -> None:
        """Enrol the devices that are not, several at a time."""
        missing = [index for index, home in enumerate(self._homes) if not home.is_enrolled]
        if missing and len(self._tokens) <= missing[-1]:
            raise BadUsage(
                f"{len(missing)} devices of the fleet are not enrolled yet",
                f"there are {len(self._tokens)} tokens, and device {missing[-1] + 1} takes the one of its number",
                "Give a file with one token a line, one for each device, with --tokens-file.",
            )

        def enroll_one(index: int) -> None:
            enroll(self._homes[index], doors, read_token(self._tokens[index]), self._names[index])

        with ThreadPoolExecutor(ENROLMENTS_AT_ONCE) as pool:
            for _ in pool.map(enroll_one, missing):
                pass
        if missing:
            self._tell(Note("fleet", f"{len(missing)} devices are enrolled.", facts={"enrolled": len(missing)}))

    def _make(self, index: int, tasks: Sequence[KnownTask], equipment: Equipment, loop: SocketLoop) -> "_Member":
        settings, home = self._settings, self._homes[index]
        cut = settings.partition or Partition("iid", 0, len(self._homes))
        piece = replace(cut, index=index % cut.count)
        offers = {known.task.name: load_offer(known, settings.data, piece) for known in tasks}
        return _Member(home, offers, settings, equipment, loop, self._summary.teller(self._names[index]))

    def _fail(self, error: BaseException) -> None:
        """End the fleet with an error, which `wait` raises."""
        self._failure = self._failure or error
        self._over.set()


class _Member:
    """One device of a fleet: its socket and its work."""

    def __init__(
        self,
        home: Home,
        offers: Mapping[str, Offer],
        settings: DeviceSettings,
        equipment: Equipment,
        loop: SocketLoop,
        tell: Tell,
    ) -> None:
        account, key = home.account(), home.key()
        session = Session(account, key, [offer.message() for offer in offers.values()])
        self.socket = Socket(loop, session, self._handle, tell)
        self.work = DeviceWork(
            home=home,
            account=account,
            key=key,
            offers=offers,
            equipment=equipment,
            link=self.socket,
            tell=tell,
            keep_model=settings.keep_model,
            command=settings.on_model,
        )

    def _handle(self, heard: Heard) -> None:
        self.work.handle(heard)


def _allow_files(count: int) -> None:
    """Let this process open as many files as its sockets need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
