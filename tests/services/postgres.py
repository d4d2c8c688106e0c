"""A PostgreSQL cluster of the tests' own, made from the distribution's programs; never the machine's."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.services.ports import free_port
from tests.services.programs import find_program

# A cluster that lives for one run owes nobody durability, and takes connections from this machine only.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
TRIES = 5


@pytest.fixture(scope="session")
def postgres_url():
    """The URL of a running cluster's maintenance database, as superuser; tests want `postgres_database` instead."""
    initdb = find_initdb()
    # Not below pytest's own folder: that one is closed to the other user whom PostgreSQL runs as under root.
    folder = Path(tempfile.mkdtemp(prefix="qflare-postgres-"))
    try:
        with running_cluster(initdb.parent, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_database(postgres_url):
    """The URL of a fresh, empty database, dropped after the test whoever is still connected."""
    name = f"test_{secrets.token_hex(8)}"
    execute(postgres_url, "CREATE DATABASE {}", name)
    yield f"{postgres_url.rpartition('/')[0]}/{name}"
    execute(postgres_url, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def running_cluster(programs, folder):
    """Make a cluster in `folder`, start it, yield its URL, stop it."""
    server = PostgresServer(programs, folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


class PostgresServer:
    """A cluster of its own, on one port of 127.0.0.1 for its whole life, to stop and start again."""

    def __init__(self, programs, folder, **settings):
        """Make the cluster in a folder; `settings` go before SETTINGS."""
        self.settings = SETTINGS | settings
        self.port = None
        self._pg_ctl, self._data, self._log = programs / "pg_ctl", folder / "data", folder / "log"
        self._account = unprivileged_account()
        self._password = secrets.token_urlsafe(24)
        password_file = folder / "password"
        password_file.write_text(self._password)
        if self._account:
            for path in (folder, password_file):
                os.chown(path, self._account["user"], self._account["group"])
        options = ["--encoding=UTF8", "--locale=C", "--no-sync", "--username=qflare", "--auth=scram-sha-256"]
        run(programs / "initdb", f"--pgdata={self._data}", f"--pwfile={password_file}", *options, **self._account)

    @property
    def url(self):
        """The URL of the maintenance database, as superuser."""
        return f"postgres://qflare:{self._password}@127.0.0.1:{self.port}/postgres"

    def start(self):
        """Start and wait until it takes connections; after `stop`, on the same port as before."""
        for _ in range(TRIES):
            port = self.port or free_port()
            settings = self.settings | {"port": port}
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            try:
                self._control("start", f"--log={self._log}", f"--options={options}")
            except subprocess.CalledProcessError:
                if "could not bind" not in self._log.read_text():
                    raise
                self._log.unlink()  # another process took the port in between
            else:
                self.port = port
                return
        pytest.fail(f"PostgreSQL found no free port in {TRIES} tries")

    def stop(self, mode="immediate"):
        """End it at once, as a crash would; `fast`: in order, though nobody is waited for."""
        self._control("stop", f"--mode={mode}")

    @contextmanager
    def stands_still(self):
        """Let none of its processes run while the block does: the system takes what is sent, and nobody answers."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # first: from here on it makes no other
        stopped = [postmaster]
        try:
            for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
                os.kill(int(child), signal.SIGSTOP)
                stopped.append(int(child))
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def _control(self, command, *arguments):
        run(self._pg_ctl, command, f"--pgdata={self._data}", "--wait", *arguments, **self._account)


@contextmanager
def restartable_cluster():
    """Start a cluster that keeps what was committed when it is ended at once; yield it, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="qflare-postgres-"))
    try:
        # What the kernel has outlives the process, so that only this one promise needs to be kept.
        server = PostgresServer(find_initdb().parent, folder, synchronous_commit="on")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def find_initdb():
    return find_program(["initdb"], "postgresql", ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"])


def unprivileged_account():
    """Return whom to run PostgreSQL as, in the words of `subprocess.run`: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    preferred = ["postgres", "nobody"]
    accounts = [entry for entry in pwd.getpwall() if entry.pw_name in preferred]
    account = min(accounts, key=lambda entry: preferred.index(entry.pw_name))
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def run(program, *arguments, **account):
    """Run a program of the cluster's to its end, with its words in the error when it fails."""
    # Files, not pipes: the server that pg_ctl leaves behind would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output:
        try:
            subprocess.run(
                [program, *arguments],
                check=True,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **account,
            )
        except subprocess.CalledProcessError as error:
            output.seek(0)
            error.add_note(output.read())
            raise


def execute(url, statement, name):
    """Run a statement about a database, which PostgreSQL allows outside transactions only."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
