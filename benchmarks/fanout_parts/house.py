"""The servers that are compared, each with its subscribers: how they are prepared, started, filled and ended."""

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fanout_parts.processes import ROOT, Program, clean_environment, free_port, run

CONNECTIONS_PER_PERSON = 60
"""A person has several pages open, not thousands: a server that limits them sees as many people as it takes."""


@dataclass(frozen=True)
class Kind:
    """One of the servers.

    Attributes:
        module: of `fanout_parts`, that serves and publishes.
        modes: the ways of publishing that are measured.
        options: of `manage.py serve`.
        is_spared: it gets fewer events where it cannot keep the fixed rate; all others get that rate whatever comes.
    """

    name: str
    title: str
    module: str
    modes: tuple[str, ...]
    path: str = "/ws/dashboard"
    options: tuple[str, ...] = ()
    is_spared: bool = False

    @property
    def is_qflare(self) -> bool:
        return self.module == "serve_qflare"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("stock", "stock recipe", "serve_stock", ("events",), is_spared=True),
        Kind("daphne", "QFLARE, Daphne", "serve_qflare", ("ticks", "durable")),
        Kind("uvicorn", "QFLARE, uvicorn", "serve_qflare", ("ticks", "durable"), options=("--server", "uvicorn")),
        Kind("websockets", "websockets broadcast", "serve_websockets", ("events",), path="/"),
    )
}


class House:
    """The folder that everything happens in, and what is prepared there once."""

    def __init__(self, folder: Path, people: int) -> None:
        """Make the databases and the sessions.

        Args:
            people: how many of them QFLARE knows.
        """
        self.folder = folder
        self._number = 0
        self._stands: list[Stand] = []
        data = folder / "prepared"
        self._sessions = run("serve_qflare", "prepare", people, environment=_qflare(data)).split()
        self._stock_folder = folder / "stock"
        self._stock_folder.mkdir()
        self._secret = secrets.token_hex(25)
        self._stock_session = run("serve_stock", "prepare", environment=self.environment_of(KINDS["stock"])).strip()

    def environment_of(self, kind: Kind, data: Path | None = None) -> dict[str, str]:
        """Return the environment of a server's process."""
        if kind.is_qflare and data is not None:
            return _qflare(data)
        return clean_environment(FANOUT_FOLDER=str(self._stock_folder), FANOUT_SECRET=self._secret)

    def cookies_of(self, kind: Kind) -> list[str]:
        """Return the sessions that its subscribers come with; none where nobody signs in."""
        match kind.name:
            case "websockets":
                return []
            case "stock":
                return [self._stock_session]
            case _:
                return self._sessions

    def open(self, kind: Kind) -> "Stand":
        """Start a server, with data of its own, and its load generator."""
        self._number += 1
        data = self.folder / f"data-{self._number}"
        if kind.is_qflare:
            shutil.copytree(self.folder / "prepared", data)
        stand = Stand(self, kind, data, self.folder / f"{self._number:02d}-{kind.name}")
        self._stands.append(stand)
        return stand

    def close(self, stand: "Stand") -> None:
        """End a server and its load generator."""
        self._stands.remove(stand)
        stand.stop()

    def programs(self) -> list[Program]:
        """Return all that runs."""
        return [program for stand in self._stands for program in (stand.server, stand.generator)]


def _qflare(data: Path) -> dict[str, str]:
    return clean_environment(QFLARE_DATA_DIR=str(data), QFLARE_LOG_LEVEL="WARNING")


class Stand:
    """One server with its subscribers."""

    def __init__(self, house: House, kind: Kind, data: Path, log: Path) -> None:
        self.kind = kind
        self.size = 0
        self.next_event = 0
        """Number of the next event that is published here; they rise, so that order can be seen."""
        self.house = house
        self.port = free_port()
        reading, writing = os.pipe()
        self.server = Program(
            kind.module,
            *(self.port, reading, *kind.options),
            log=log.with_suffix(".server.log"),
            environment=house.environment_of(kind, data),
            keep=reading,
        )
        self.generator = Program(
            "generator",
            writing,
            log=log.with_suffix(".generator.log"),
            environment=clean_environment(),
            keep=writing,
        )
        os.close(reading)
        os.close(writing)

    def fill(self, size: int, rate: float) -> float:
        """Have so many subscribers, connected at so many a second at most; return how many seconds it took."""
        answer = self.generator.ask(
            "connect",
            port=self.port,
            path=self.kind.path,
            count=size,
            cookies=self.house.cookies_of(self.kind),
            rate=rate,
            welcomes=self.kind.is_qflare,
        )
        self.size = size
        return float(answer["seconds"])

    def stop(self) -> None:
        """End both; the server first, so that its end is in its log."""
        self.server.stop()
        self.generator.stop()


def require_uvicorn() -> None:
    """Make sure that this checkout serves with uvicorn, or end and say what is missing."""
    shown = subprocess.run(
        [sys.executable, "manage.py", "serve", "--help"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if "--server" not in shown.stdout:
        raise SystemExit(
            "the rows of uvicorn need `manage.py serve --server uvicorn`; this `serve` has no `--server`.\n"
            "Leave them out: --servers stock,daphne,websockets"
        )
