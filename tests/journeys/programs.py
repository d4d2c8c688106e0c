"""The programs of a journey: real processes with their logs, ended by signals and with the test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30
OF_THE_MACHINE = ("QFLARE_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "JOURNEY_")


def clean_environment(**changes):
    """Return this process's environment without what would set up the project, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_MACHINE)}
    return kept | changes


class Program:
    """One process of Python, started in the checkout, with what it says in a log."""

    def __init__(self, name, arguments, *, log, environment):
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __str__(self):
        return f"{self.name} (process {self.pid}, exit code {self._process.poll()})"

    @property
    def pid(self):
        return self._process.pid

    @property
    def is_running(self):
        return self._process.poll() is None

    @property
    def is_stopped(self):
        """Say whether a signal holds it; its state is the first field after its name, which may hold blanks."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def said(self):
        """Return all that it said."""
        return self.log.read_text(errors="replace")

    def last_words(self, lines=30):
        return "\n".join(self.said().splitlines()[-lines:])

    def send(self, number):
        self._process.send_signal(number)

    def wait(self, seconds=120):
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended after {seconds} s\n{self.last_words()}") from None

    def kill(self):
        """End it as a power cut would."""
        self._process.kill()
        return self.wait()

    def stop(self):
        """Ask it to end, wait, and return its exit code; what does not end is killed."""
        if self.is_running:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        try:
            return self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()
