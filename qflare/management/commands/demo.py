"""`manage.py demo`: from nothing to a live federated run of five devices, in one command."""

import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console

from fl.demo import demo_plan
from fl.devices import issue_token
from fl.files import local_path
from fl.lifecycle import DeviceState
from fl.models import Device, Run
from fl.people import issue_sign_in_code
from qflare.demo.display import display_for
from qflare.demo.processes import CannotStart, Process, check_folder, check_port
from qflare.demo.viewer import Viewer

ENROLL_SECONDS = 60


class Command(BaseCommand):
    """Starts a server and devices, lets them train, shows it, and stops all it started."""

    help = "Train for real: a server, five devices in processes of their own, one run, and a live page."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--exit", action="store_true", help="end after the run; exit code 0 only if it completed")
        parser.add_argument("--iid", action="store_true", help="every device sees all digits (default: Dirichlet 0.3)")
        parser.add_argument("--devices", type=int, default=5, help="how many devices (default 5)")
        parser.add_argument("--rounds", type=int, default=20, help="how many rounds (default 20)")
        parser.add_argument("--task", default="digits", help="what is learned (default digits)")
        parser.add_argument("--seed", type=int, default=7, help="of the run and of the partition (default 7)")
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000)")

    def handle(self, *_: Any, **options: Any) -> None:
        console = Console(stderr=False)
        try:
            with Demonstration(console, options) as demonstration:
                completed = demonstration.play()
                if not options["exit"]:
                    demonstration.serve_on()
        except CannotStart as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            console.print("\nstopped; everything is kept in", settings.QFLARE_DATA_DIR, highlight=False)
            return
        if not completed:
            sys.exit(5)


class Demonstration:
    """One playing of the demonstration; as a context it ends what it started."""

    def __init__(self, console: Console, options: dict[str, Any]) -> None:
        self.console = console
        self.options = options
        self.folder = Path(settings.QFLARE_DATA_DIR) / "demo"
        self.viewer = Viewer(options["host"], options["port"])
        self._processes: list[Process] = []

    def __enter__(self) -> "Demonstration":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _as_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        # Devices first, so that they say goodbye to a server that still listens.
        for group in (self._processes[1:], self._processes[:1]):
            for process in group:
                process.terminate()
            for process in group:
                process.finish()

    def play(self) -> bool:
        """Set up, train, and tell the result; say whether the run completed."""
        check_folder(Path(settings.QFLARE_DATA_DIR))
        check_port(self.options["host"], self.options["port"])
        call_command("migrate", verbosity=0, interactive=False)
        self.console.print(f"QFLARE {settings.QFLARE_VERSION}  data in {settings.QFLARE_DATA_DIR}", highlight=False)
        server = self._start_server()
        codes = _sign_in_codes(2)
        names = [f"device-{number}" for number in range(1, self.options["devices"] + 1)]
        self.viewer.wait_until_ready(server)
        self._say("server", self.viewer.url)
        self._enroll(names)
        for index, name in enumerate(names):
            self._start_device(index, name)
        self._say("devices", f"{len(names)} enrolled, each a process of its own")
        self._say("watch it", f"{self.viewer.url}/sign-in/#code={codes[0]}")
        self.viewer.sign_in(codes[1])
        run = self._start_run(len(names))
        return self._watch(run, server)

    def serve_on(self) -> None:
        """Leave server and devices at work until Ctrl-C."""
        self.console.print("\nServing on. Ctrl-C stops the server and the devices.", highlight=False)
        while True:
            signal.pause()

    def _say(self, what: str, detail: str) -> None:
        self.console.print(f"[green]✓[/green] {what:<9} {detail}", highlight=False, soft_wrap=True)

    def _start_server(self) -> Process:
        arguments = ["manage.py", "serve", "--host", self.options["host"], "--port", str(self.options["port"])]
        environment = {"QFLARE_PUBLIC_DASHBOARD": "1"}
        return self._started(Process("the server", arguments, self.folder / "server.log", environment))

    def _started(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def _home(self, name: str) -> Path:
        return self.folder / "devices" / name

    def _enroll(self, names: list[str]) -> None:
        """Enrol the devices that are not yet, all at the same time, each by its own process and token."""
        enrolled = set(Device.objects.filter(name__in=names, state=DeviceState.ACTIVE).values_list("name", flat=True))
        waiting = [self._enroll_one(name) for name in names if name not in enrolled]
        for process in waiting:
            if process.wait(ENROLL_SECONDS) != 0:
                process.check()

    def _enroll_one(self, name: str) -> Process:
        _, token = issue_token(
            label=f"demo {name}",
            auto_approve=True,
            lifetime=timedelta(minutes=10),
            created_by=None,
            now=timezone.now(),
        )
        arguments = ["-m", "edge", "enroll", self.viewer.url, "--name", name, "--home", str(self._home(name))]
        # By the environment: arguments can be read by every user of the machine.
        return Process(f"enrolment of {name}", arguments, self._log(name), {"QFLARE_TOKEN": str(token)})

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _start_device(self, index: int, name: str) -> None:
        count, seed = self.options["devices"], self.options["seed"]
        partition = f"iid:{index}/{count}:{seed}" if self.options["iid"] else f"dirichlet:0.3:{index}/{count}:{seed}"
        arguments = ["-m", "edge", "run", "--home", str(self._home(name)), "--task", self.options["task"]]
        # A device of an earlier demonstration may have enrolled at another port.
        arguments += ["--server", self.viewer.url]
        self._started(Process(name, [*arguments, "--partition", partition, "--threads", "1"], self._log(name), {}))

    def _start_run(self, devices: int) -> dict[str, Any]:
        options = self.options
        plan = replace(
            demo_plan(devices),
            name=f"{options['task']}-{'iid' if options['iid'] else 'dirichlet-0.3'}",
            task=options["task"],
            rounds=options["rounds"],
            seed=options["seed"],
            public=True,
        )
        body = {name: value for name, value in asdict(plan).items() if value is not None}
        run = self.viewer.post("/api/v1/runs/", body)
        return self.viewer.post(f"/api/v1/runs/{run['id']}/start/", {})

    def _watch(self, run: dict[str, Any], server: Process) -> bool:
        """Show the run until it ends; say whether it completed."""
        display = display_for(self.console, self.options["rounds"])
        shown = -1
        for frame, data in self.viewer.frames(server):
            for event, item in _of_run(frame.event, data, run["id"]):
                if event == "model_aggregation" and item["phase"] == "completed" and item["round"] > shown:
                    shown = item["round"]
                    display.round(shown, item)
                elif event == "training_progress" and item["device_name"]:
                    display.device(item["device_name"], item["progress"] or 0.0, item["phase"])
                elif event == "fl_status_update" and item["state"] in ("completed", "failed", "stopped"):
                    display.close()
                    return self._tell_result(run["id"], item)
                elif event == "fl_status_update":
                    display.waits(item["reason"])
        return False

    def _tell_result(self, run_id: int, status: dict[str, Any]) -> bool:
        run = Run.objects.select_related("best_model").get(pk=run_id)
        if status["state"] != "completed":
            self.console.print(f"[red]The run {status['state']}[/red]: {status['reason']}", highlight=False)
            return False
        best = run.best_model
        last = run.models.filter(published_at__isnull=False).latest("version")
        accuracy = (last.metrics or {}).get("accuracy")
        measured = f"test accuracy {accuracy:.4f}" if accuracy is not None else "not evaluated here"
        self.console.print(f"\n[bold]Completed[/bold]: {run.rounds} rounds, {measured}", highlight=False)
        if best is not None:
            place = local_path(best.file)
            self.console.print(f"best model  version {best.version}, {place}", highlight=False, soft_wrap=True)
        self.console.print(
            "Next:\n"
            f"  1. look at the run, start another: {self.viewer.url}/\n"
            f"  2. bring in a device of your own: {self.viewer.url}/devices/enrol/\n"
            "  3. learn from your own data: docs/tasks.md",
            highlight=False,
        )
        return True


_IN_A_SNAPSHOT = {"model_aggregation": "models", "training_progress": "progress", "fl_status_update": "runs"}
"""Event → field of a snapshot that holds its newest states, in the order in which they happened."""


def _of_run(event: str, data: dict[str, Any], run_id: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events about one run that a frame holds: its own, those of the log, or the states of a snapshot."""
    if event == "recent_events":
        for logged in data["events"]:
            yield from _of_run(logged["event"], logged["data"], run_id)
    elif event == "snapshot":
        for name, key in _IN_A_SNAPSHOT.items():
            for item in data[key]:
                yield from _of_run(name, item, run_id)
    elif data.get("run_id") == run_id:
        # A tick holds the newest of each device at work.
        for part in data.get("devices") or [{}]:
            yield event, {**data, **part}


def _sign_in_codes(count: int) -> list[str]:
    user, created = User.objects.get_or_create(username="demo")
    if created:
        user.set_unusable_password()
        user.save()
    user.groups.add(Group.objects.get(name="admin"))
    return [issue_sign_in_code(user=user, now=timezone.now()) for _ in range(count)]


def _as_interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
