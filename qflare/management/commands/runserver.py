"""`manage.py runserver`: Django's server for development, with our limits and sockets, and a coordinator beside it."""

import os
from argparse import ArgumentParser
from functools import partial
from typing import Any, cast

from daphne.management.commands.runserver import Command as DaphneCommand

from qflare.management.commands.serve import cannot_listen
from qflare.serving import CannotListen
from qflare.static import collect_if_stale

_daphne = cast("Any", DaphneCommand)  # which has no types


class Command(DaphneCommand):
    """Daphne's command around our server; it starts anew when a file of the code changes, as Django's does."""

    help = "Serve for development: starts anew when code changes. Example: manage.py runserver 8000"

    def add_arguments(self, parser: ArgumentParser) -> None:
        _daphne.add_arguments(self, parser)
        parser.add_argument("--no-coordinator", action="store_true", help="serve only")

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Serve, with a coordinator that ends with the process: whatever it is in the middle of, the next goes on."""
        # Late, since both load torch.
        from fl.coordinator import Coordinator
        from qflare.server import Server

        command = cast("Any", self)
        host, port = command.addr, int(command.port)
        command.server_cls = partial(_make, Server, host, port)
        collect_if_stale()
        if not options["no_coordinator"]:
            Coordinator().start()
        try:
            _daphne.inner_run(self, *args, **options)
        except CannotListen as error:
            self.stderr.write(f"Error: {cannot_listen(host, port, str(error))}")
            os._exit(1)  # as Django's own does: in the thread that is watched an exception would not end the process


def _make(server: Any, host: str, port: int, *, application: Any, signal_handlers: bool, **_: Any) -> Any:
    """Return our server, for which the sizes and times of Daphne's options are its own affair."""
    return server(application, host=host, port=port, signal_handlers=signal_handlers)
