"""`manage.py serve`: the web server and the coordinator in one process, which is all a small installation needs."""

import gc
import os
import socket
import ssl
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from qflare.serving import CannotListen, Certificate
from qflare.static import collect_if_stale

END_SECONDS = 4.5
"""From the signal to the end of all: of the sockets, and of the step that the coordinator is in."""


class Command(BaseCommand):
    """Checks what must be right, then serves until SIGTERM or Ctrl-C."""

    help = "Serve pages, API and sockets, and drive the runs. Example: manage.py serve --host 0.0.0.0 --port 8000"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000; 0: any free one)")
        parser.add_argument(
            "--server", choices=["daphne", "uvicorn"], default="daphne", help="the web server (default daphne)"
        )
        parser.add_argument(
            "--certificate", type=Path, help="PEM file of its certificate, and of those between: speak TLS, only TLS"
        )
        parser.add_argument("--key", type=Path, help="PEM file of the certificate's private key, without a password")
        parser.add_argument(
            "--no-coordinator", action="store_true", help="serve only; `manage.py coordinate` drives the runs elsewhere"
        )

    def handle(
        self,
        *_: Any,
        host: str,
        port: int,
        server: str,
        certificate: Path | None,
        key: Path | None,
        no_coordinator: bool,
        **__: Any,
    ) -> None:
        shown = _certificate_of(certificate, key)
        if shown is not None:
            # As behind a proxy with TLS, but it is known only here: nobody comes otherwise.
            settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
        _require_free(host, port)
        require_migrations()
        if collect_if_stale():
            self.stderr.write("collected static files")
        # What start-up makes stays to the end. To look through it for garbage would take half a second by now, and
        # later stop all sockets for a fifth of a second, again and again.
        gc.disable()
        try:
            self._serve(server, host, port, shown, has_coordinator=not no_coordinator)
        finally:
            gc.enable()
        self.stderr.write("stopped")

    def _serve(self, server: str, host: str, port: int, shown: Certificate | None, *, has_coordinator: bool) -> None:
        # Late, since both load torch: what is wrong before is said at once.
        from fl.coordinator import Coordinator
        from qflare.asgi import application

        coordinator = Coordinator() if has_coordinator else None
        end = _End(coordinator)
        serving = server_class(server)(
            application,
            host=host,
            port=port,
            certificate=shown,
            started=lambda bound: self._listen("https" if shown else "http", host, bound),
            ending=end.begin,
        )
        if coordinator is not None:
            coordinator.start()
        try:
            serving.run()
        except CannotListen as error:
            raise CommandError(cannot_listen(host, port, str(error))) from error
        finally:
            end.finish()

    def _listen(self, scheme: str, host: str, port: int) -> None:
        """Say where, and look for garbage from now on, in what is made from now on."""
        gc.freeze()
        gc.enable()
        name = f"[{host}]" if ":" in host else host
        self.stdout.write(f"serving on {scheme}://{name}:{port}/ (process {os.getpid()})")
        self.stdout.flush()


class _End:
    """The end of the coordinator, which begins with the server's and has the same time."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self._give_up_at: float | None = None

    def begin(self) -> None:
        """Let the coordinator finish the step that it is in; called again, it changes nothing."""
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + END_SECONDS
            if self._coordinator is not None:
                self._coordinator.stop()

    def finish(self) -> None:
        """Wait for the coordinator, for as long as there is time."""
        self.begin()
        if self._coordinator is not None and self._give_up_at is not None:
            self._coordinator.join(max(0.1, self._give_up_at - time.monotonic()))


def server_class(name: str) -> Any:
    """Return the class of a web server, which is loaded only now.

    Raises:
        CommandError: uvicorn is asked for and not installed; the text says what to do.
    """
    if name == "daphne":
        from qflare.server import Server

        return Server
    try:
        from qflare.uvicorn_server import Server as UvicornServer
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "h11", "websockets"):
            raise
        raise CommandError(
            f"{error.name} is not installed, which --server uvicorn needs.\n"
            "Run: pip install -r requirements.txt, or leave out --server"
        ) from error
    return UvicornServer


def require_migrations() -> None:
    """Make sure that the database is up to date, and leave it for the threads to come.

    Raises:
        CommandError: as `check_migrations`.
    """
    check_migrations()
    connection.close()


def check_migrations() -> None:
    """Make sure that the database is up to date.

    Raises:
        CommandError: it is not, or cannot be reached; the text says what to do.
    """
    try:
        executor = MigrationExecutor(connection)
    except OperationalError as error:
        raise CommandError(
            f"the database cannot be reached: {error}.\nSee whether it runs, and whether DATABASE_URL is right"
        ) from error
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in missing[:3])
        raise CommandError(
            f"the database lacks {len(missing)} migrations ({names}{', …' if len(missing) > 3 else ''}).\n"
            "Run: manage.py migrate"
        )


def cannot_listen(host: str, port: int, why: str) -> str:
    """Return what is said when the address cannot be had."""
    return f"cannot listen on {host}:{port}: {why}.\nStop what uses it, or choose another: --port {port + 1}"


def _certificate_of(chain: Path | None, key: Path | None) -> Certificate | None:
    """Return what the server shows of itself, having tried whether it can be used.

    Raises:
        CommandError: one of the two is missing, or they cannot be used; the text says what to do.
    """
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise CommandError("--certificate and --key belong together.\nName both, or neither")
    try:
        # A key with a password would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, lambda: "")
    except (OSError, ValueError) as error:  # which SSLError is too
        raise CommandError(
            f"the certificate {chain} with the key {key} cannot be used: {error}.\n"
            "Name PEM files that belong together; the key must have no password"
        ) from error
    return Certificate(chain, key)


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server itself does it: an address that is only cooling down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise CommandError(cannot_listen(host, port, error.strerror or str(error))) from error
