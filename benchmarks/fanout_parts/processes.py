"""Processes that the benchmark starts and commands, and what the kernel says of them and of the machine."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTS = Path(__file__).resolve().parent
ROOT = PARTS.parent.parent
START_SECONDS = 120.0
STOP_SECONDS = 15.0


class Program:
    """One script of the benchmark: commands go in, answers come out, and what it says besides is in a log."""

    def __init__(
        self,
        module: str,
        *arguments: object,
        log: Path,
        environment: dict[str, str],
        keep: int = -1,
        package: str = "fanout_parts",
    ) -> None:
        """Start it.

        Args:
            module: one of `package`.
            keep: a descriptor that it inherits.
        """
        self.name = f"{module} {' '.join(map(str, arguments))}"
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{package}.{module}", *map(str, arguments)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                pass_fds=[keep] if keep >= 0 else [],
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Command something and return the answer."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: object) -> None:
        """Command something; `answer` waits for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SystemExit(self._end()) from None

    def answer(self) -> dict[str, Any]:
        """Return the next line that is an answer; what else a program prints is passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    raise SystemExit(f"{self.name}: {answer['error']}\n{self.last_words()}")
                return answer
        raise SystemExit(self._end())

    def _end(self) -> str:
        return f"{self.name} has ended ({self._process.wait()})\n{self.last_words()}"

    def wait_for_port(self, port: int) -> None:
        """Return when it listens."""
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name} does not listen\n{self.last_words()}")

    def last_words(self, lines: int = 20) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads so far, those that have ended included."""
        # Linux names the CPU clock of another process so (CPUCLOCK_SCHED, without the bit for a thread).
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_kb(self) -> int:
        """Return its resident memory in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1])

    def stop(self) -> None:
        """End it and wait."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it has ended, and what it was told last is still here
                    pipe.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(module: str, *arguments: object, environment: dict[str, str], package: str = "fanout_parts") -> str:
    """Run a module of the benchmark to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{module} {' '.join(map(str, arguments))} failed; it says why above")
    return done.stdout


def clean_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without what would set up a server, and with `changes`."""
    own = ("QFLARE_", "DJANGO_", "DATABASE_URL", "REDIS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{PARTS.parent}", **changes}


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_open_files() -> None:
    """Let this process, and those that it starts, open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_open_files(number: int) -> None:
    """Make sure that so many sockets can be open in one process, or end and say what to do."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 200:
        raise SystemExit(
            f"{number} sockets need {number + 200} open files; this shell allows {soft}: raise `ulimit -Hn`"
        )


class Machine:
    """How much of the machine others use, between its making and `others`."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self.load = os.getloadavg()[0]
        """The mean of the last minute, in which the benchmark itself worked too."""
        self._at, self._busy, self._own = time.monotonic(), _busy_s(), self._own_s()

    def others(self) -> float:
        """Return the share of all cores that was neither idle nor ours, in [0, 1]."""
        seconds = (time.monotonic() - self._at) * (os.cpu_count() or 1)
        foreign = (_busy_s() - self._busy) - (self._own_s() - self._own)
        return min(max(foreign / seconds, 0.0), 1.0) if seconds else 0.0

    def _own_s(self) -> float:
        return time.process_time() + sum(program.cpu_s() for program in self._programs)


def _busy_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, interrupt, soft_interrupt, stolen = map(int, fields)
    return (user + nice + system + interrupt + soft_interrupt + stolen) / os.sysconf("SC_CLK_TCK")
