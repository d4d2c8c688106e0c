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
from contextlib import closing

import psycopg
import pytest

from tests.test_house import ROOT

GIVE_UP_SECONDS = 120
COUNT = 40
SECONDS_BETWEEN_LOOKS = 0.05
# Each process names the streams in another order, and shares some with others.
WRITERS = {"ada": ["a", "b", "c"], "bob": ["c", "b", "a"], "cyd": ["b", "d", "a"]}


@pytest.fixture(params=["sqlite", "postgresql"])
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


def start(name, streams, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fl.writers", name, str(COUNT), *streams],
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
def writers(environment):
    """The processes, about to be ready to write."""
    processes = {name: start(name, streams, environment) for name, streams in WRITERS.items()}
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


def test_streams_have_no_holes_while_processes_write_and_roll_back(environment, writers):
    for process in writers.values():
        assert process.stdout.readline() == "ready\n"

    with closing(connect(environment["DATABASE_URL"])) as connection:
        for process in writers.values():
            process.stdin.write("go\n")
            process.stdin.flush()
        looks = [look(connection)]
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        for process in writers.values():
            while not has_ended(process):
                assert time.monotonic() < give_up_at
                looks.append(look(connection))
        last = look(connection)
        heads = dict(connection.execute("SELECT name, head FROM fl_stream").fetchall())

    assert [process.returncode for process in writers.values()] == [0, 0, 0]
    # What was once seen stays where it was.
    for earlier in looks:
        for stream, codes in earlier.items():
            assert last[stream][: len(codes)] == codes
    assert {stream: len(codes) for stream, codes in last.items()} == {s: h for s, h in heads.items() if h}
    # Each process finds what it committed, in its own order, and nothing else is there.
    committed = {name: [json.loads(line) for line in process.stdout] for name, process in writers.items()}
    for stream, codes in last.items():
        for name, said in committed.items():
            mine = [code for code in codes if code.startswith(name)]
            assert mine == [code for where, code in said if where == stream]
    assert sum(map(len, last.values())) == sum(map(len, committed.values()))
    assert len(looks) > 3, "the processes were through before anybody could look"
