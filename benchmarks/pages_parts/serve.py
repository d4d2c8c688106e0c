"""QFLARE as shipped (`manage.py serve --no-coordinator`) over a prepared database, with load from within its process.

python -m pages_parts.serve PORT ASSIGNMENTS [OPTION ...]     serve; ASSIGNMENTS names those of the open round
"""

import json
import os
import sys
from pathlib import Path

from fanout_parts.publisher import Publisher

os.environ["DJANGO_SETTINGS_MODULE"] = "qflare.settings"

ERROR_EVERY = 20
"""One of so many events is an error, recorded in the log; the others are devices that tell how far they are."""


def main() -> None:
    from django.core.management import execute_from_command_line

    port, assignments, *options = sys.argv[1:]
    load = Load(json.loads(Path(assignments).read_text()))
    Publisher({"load": load.publish, "rounds": load.publish_rounds}, os.open(os.devnull, os.O_RDONLY)).start()
    execute_from_command_line(["manage.py", "serve", "--no-coordinator", "--port", port, *options])


class Load:
    """What happens on a busy server: devices at work, and errors among them."""

    def __init__(self, prepared: dict[str, list[dict[str, int | str]]]) -> None:
        self._devices = prepared["assignments"]
        [self._run] = prepared["run"]

    def publish(self, first: int, count: int) -> None:
        """Tell so many events by the ways that the server's own use cases take."""
        for number in range(first, first + count):
            if number % ERROR_EVERY == 0:
                self._record_error(number)
            else:
                self._tell_progress(number)

    def _tell_progress(self, number: int) -> None:
        from django.utils import timezone

        from edge.protocol.server import DeviceTick
        from fl import events

        device = self._devices[number % len(self._devices)]
        progress = (number // len(self._devices)) % 100 / 100
        tick = DeviceTick(
            assignment_id=int(device["assignment"]),
            device_id=int(device["device"]),
            device_name=str(device["name"]),
            phase="training",
            progress=progress,
            local_epoch=1,
            local_epochs=1,
            loss=1 - progress,
        )
        run, round_ = int(self._run["id"]), int(self._run["round"])
        events.tick_device(tick, run_id=run, round=round_, now=timezone.now())

    def _record_error(self, number: int) -> None:
        from django.utils import timezone

        from edge.protocol.server import ErrorNotification
        from fl import events

        error = ErrorNotification(code="benchmark", severity="warning", title=f"Trouble number {number}")
        with events.transaction():
            events.record(events.SYSTEM, error, timezone.now())

    def publish_rounds(self, first: int, count: int) -> None:
        """Tell the end of the open round again: the curve is painted anew for each."""
        from django.utils import timezone

        from edge.protocol.server import TrainingProgress
        from fl import events

        for number in range(first, first + count):
            done = TrainingProgress(
                run_id=int(self._run["id"]),
                round=int(self._run["round"]),
                phase="round_completed",
                progress=1.0,
                metrics={"accuracy": 0.9, "loss": 0.3},
                updates_received=number,
                duration_seconds=1.0,
            )
            with events.transaction():
                events.record(f"run:{self._run['id']}", done, timezone.now())


if __name__ == "__main__":
    main()
