"""Processes that the demonstration starts, and that end with it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOP_SECONDS = 8


class CannotStart(Exception):
    """The demonstration cannot begin or go on; the text says what, why, and what to do."""


class Process:
    """One started process, its log, and its end."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches the demonstration alone, which then ends the others in order.
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        """Return the exit code.

        Raises:
            CannotStart: it did not end in time.
        """
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise CannotStart(f"{self.name} did not end within {seconds:g} s; see {self.log}") from error

    def check(self) -> None:
        """Raise CannotStart if the process has ended."""
        if not self.running:
            raise CannotStart(
                f"{self.name} ended with exit code {self._process.returncode}:\n{self.last_words()}\nMore in {self.log}"
            )

    def last_words(self, lines: int = 6) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask it to end."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def finish(self) -> None:
        """Wait for its end; kill it if that takes too long."""
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def check_port(host: str, port: int) -> None:
    """Raise CannotStart if something listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"port {port} on {host} cannot be used ({error.strerror}).\n"
                f'Stop what listens there, or take another port: make demo ARGS="--port {port + 1}"'
            ) from error


def check_folder(folder: Path) -> None:
    """Raise CannotStart if one cannot write to the data folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CannotStart(
            f"the data folder {folder} cannot be written to ({error.strerror}).\n"
            "Give yourself the right, or name another folder: QFLARE_DATA_DIR=/path make demo"
        ) from error
