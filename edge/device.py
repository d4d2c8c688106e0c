"""A device's life: load its data, connect, work, until it is stopped or sent away."""

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.config import DeviceSettings
from edge.connection import Socket, SocketLoop
from edge.http import Doors, Server, trusted_certificates
from edge.jobs import Jobs
from edge.models import WeightsCache
from edge.notes import Tell, tell_nobody
from edge.offers import Offer, know_tasks, load_offer
from edge.session import Heard, Session
from edge.store import Home
from edge.training import set_torch_threads
from edge.work import DeviceWork, Equipment

NETWORK_THREADS = 3
"""One for an update, one for a model, one that waits for a server that does not answer."""

STOP_SECONDS = 5.0
"""How long a stop waits for what is on its way to the server; the rest is sent after the next start."""


class Device:
    """One device: `start` returns once it works, `wait` when it is over, and `stop` ends it from any thread.

        with Device(Path("home"), DeviceSettings(tasks=("linear",))) as device:
            device.wait()

    Args:
        home: the device's folder, enrolled.
        tell: told what happens, from several threads.
    """

    def __init__(self, home: Path, settings: DeviceSettings, tell: Tell = tell_nobody) -> None:
        self._home = Home(home)
        self._settings = settings
        self._tell = tell
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

    def start(self) -> None:
        """Load what the device offers and begin to work.

        Raises:
            EdgeError: the folder, the address, a task or its data cannot be used.
        """
        with ExitStack() as resources:
            resources.enter_context(self._home.hold())
            account, key = self._home.account(), self._home.key()
            server = Server(self._settings.server or account.server)
            server.require_safe("The device's bearer token")
            certificates = trusted_certificates(server, self._settings.ca)
            set_torch_threads(self._settings.threads)
            offers = self._load_offers()
            equipment = Equipment(
                Jobs(training=1, network=NETWORK_THREADS, on_crash=self._fail),
                Doors(server, certificates),
                WeightsCache(self._home.weights),
            )
            resources.callback(equipment.close, STOP_SECONDS)
            session = Session(account, key, [offer.message() for offer in offers.values()])
            loop = SocketLoop(server, certificates)
            resources.callback(loop.stop, STOP_SECONDS)
            socket = Socket(loop, session, self._handle, self._tell)
            self._work = DeviceWork(
                home=self._home,
                account=account,
                key=key,
                offers=offers,
                equipment=equipment,
                link=socket,
                tell=self._tell,
                keep_model=self._settings.keep_model,
                command=self._settings.on_model,
            )
            resources.callback(self._work.stop)
            loop.start([socket], self._fail)
            self._resources = resources.pop_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the device is over, by `stop` or because it cannot go on; say whether it is.

        Raises:
            Barred: the server sent it away for good.
        """
        is_over = self._over.wait(seconds)
        if self._failure is not None:
            raise self._failure
        return is_over

    def stop(self) -> None:
        """End training within one batch, let what is on its way arrive, and close the connection."""
        self._resources.close()
        self._over.set()

    def _load_offers(self) -> dict[str, Offer]:
        settings = self._settings
        tasks = know_tasks(settings.tasks)
        return {known.task.name: load_offer(known, settings.data, settings.partition) for known in tasks}

    def _handle(self, heard: Heard) -> None:
        self._work.handle(heard)

    def _fail(self, error: BaseException) -> None:
        """End the device with an error, which `wait` raises."""
        self._failure = self._failure or error
        self._over.set()
