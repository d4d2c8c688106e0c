"""Streams have no holes while several processes write to them and some of their transactions fail, on both databases.

Whoever looks while they write never sees a hole: the order of `seq` is the order of commits.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from tests.test_house import ROOT

GIVE_UP_SECONDS = 120
SECONDS_BETWEEN_LOOKS = 0.05
# Each process names the streams in another order, and shares some with others.
WRITERS = {"ada": ["a", "b", "c"], "bob": ["c", "b", "a"], "cyd": ["b", "d", "a"]}
OPPOSITES = {name: WRITERS[name] for name in ("ada", "bob")}


@pytest.fixture
def environment(request, tmp_path):
    """The environment of a server with a fresh, migrated database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'qflare.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_database")
    environment = os.environ | {
        "DATABASE_URL": url,
        "QFLARE_DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "qflare.settings",
    }
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0", "--skip-checks"]
    subprocess.run(migrate, check=True, cwd=ROOT, env=environment)
    return environment


def connect(url):
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    return psycopg.connect(url, autocommit=True)


def look(connection):
    """Return the log as it is now: stream → codes in the order of seq, having made sure that there is no hole."""
    rows = connection.execute("SELECT stream_id, seq, data FROM fl_event ORDER BY stream_id, seq").fetchall()
    log = defaultdict(list)
    for stream, seq, data in rows:
        log[stream].append(json.loads(data)["code"])
        assert seq == len(log[stream]), f"{stream} has a hole before {seq}"
    return log


def start(name, count, streams, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fl.writers", name, str(count), *streams],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def has_ended(process):
    """Give a process a moment to end; say whether it has."""
    try:
        process.wait(timeout=SECONDS_BETWEEN_LOOKS)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.fixture
def begin(environment):
    """Return a function that starts processes which are about to write."""
    processes = {}

    def begin(writers, count):
        processes.update({name: start(name, count, streams, environment) for name, streams in writers.items()})
        return processes

    yield begin
    for process in processes.values():
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize(
    ("environment", "writers", "count"),
    [("sqlite", WRITERS, 40), ("postgresql", WRITERS, 40), ("postgresql", OPPOSITES, 1000)],
    ids=["three on SQLite", "three on PostgreSQL", "two in opposite orders a thousand times on PostgreSQL"],
    indirect=["environment"],
)
def test_streams_have_no_holes_while_processes_write_and_roll_back(environment, begin, writers, count):
    processes = begin(writers, count)
    for process in processes.values():
        assert process.stdout.readline() == "ready\n"

    with closing(connect(environment["DATABASE_URL"])) as connection, ThreadPoolExecutor() as threads:
        for process in processes.values():
            process.stdin.write("go\n")
            process.stdin.flush()
        # What they say is taken as it comes: a pipe that is full would stop them.
        said = {name: threads.submit(list, process.stdout) for name, process in processes.items()}
        looks = [look(connection)]
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        for process in processes.values():
            while not has_ended(process):
                assert time.monotonic() < give_up_at
                looks.append(look(connection))
        last = look(connection)
        heads = dict(connection.execute("SELECT name, head FROM fl_stream").fetchall())

    assert [process.returncode for process in processes.values()] == [0] * len(processes)
    # What was once seen stays where it was.
    for earlier in looks:
        for stream, codes in earlier.items():
            assert last[stream][: len(codes)] == codes
    assert {stream: len(codes) for stream, codes in last.items()} == {s: h for s, h in heads.items() if h}
    # Each process finds what it committed, in its own order, and nothing else is there.
    committed = {name: [json.loads(line) for line in lines.result()] for name, lines in said.items()}
    for stream, codes in last.items():
        for name, written in committed.items():
            mine = [code for code in codes if code.startswith(name)]
            assert mine == [code for where, code in written if where == stream]
    assert sum(map(len, last.values())) == sum(map(len, committed.values()))
    assert len(looks) > 3, "the processes were through before anybody could look"
