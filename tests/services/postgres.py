"""A PostgreSQL cluster of the tests' own, made from the distribution's programs; never the machine's."""

import os
import pwd
import secrets
import shutil
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
    initdb = find_program(["initdb"], "postgresql", ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"])
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
    data, log, password_file = folder / "data", folder / "log", folder / "password"
    password = secrets.token_urlsafe(24)
    password_file.write_text(password)
    account = unprivileged_account()
    if account:
        for path in (folder, password_file):
            os.chown(path, account["user"], account["group"])
    access = ["--username=qflare", "--auth=scram-sha-256", f"--pwfile={password_file}"]
    run(programs / "initdb", f"--pgdata={data}", "--encoding=UTF8", "--locale=C", "--no-sync", *access, **account)
    port = start(programs / "pg_ctl", data, log, account)
    try:
        yield f"postgres://qflare:{password}@127.0.0.1:{port}/postgres"
    finally:
        run(programs / "pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate", "--wait", **account)


def start(pg_ctl, data, log, account):
    """Start the cluster on a free port and return the port once it takes connections."""
    for _ in range(TRIES):
        port = free_port()
        options = " ".join(f"-c {name}='{value}'" for name, value in (SETTINGS | {"port": port}).items())
        try:
            run(pg_ctl, "start", f"--pgdata={data}", f"--log={log}", f"--options={options}", "--wait", **account)
        except subprocess.CalledProcessError:
            if "could not bind" not in log.read_text():
                raise
            log.unlink()  # another process took the port in between
        else:
            return port
    pytest.fail(f"PostgreSQL found no free port in {TRIES} tries")


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
