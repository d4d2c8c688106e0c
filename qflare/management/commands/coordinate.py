"""`manage.py coordinate`: the coordinator alone, for installations with several processes; any number may run."""

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from edge.waiting import wait_until
from qflare.management.commands.serve import require_migrations
from realtime.publishing import own_loop


class Command(BaseCommand):
    """Drives the runs until SIGTERM or Ctrl-C."""

    help = "Drive the runs, without serving anything. Example: manage.py coordinate"

    def handle(self, *_: Any, **__: Any) -> None:
        require_migrations()
        if not settings.REDIS_URL:
            # Allowed: servers read what happens here from the log.
            self.stderr.write(
                f"REDIS_URL is not set: servers hear of what happens here within {settings.QFLARE_POLL_SECONDS:g} s, "
                "by looking into the log."
            )
        from fl.coordinator import Coordinator  # late, since it loads torch

        ending = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
        with own_loop():
            coordinator = Coordinator()
            coordinator.start()
            self.stdout.write("coordinating")
            self.stdout.flush()
            wait_until(ending.wait)
            coordinator.stop()
            coordinator.join()
