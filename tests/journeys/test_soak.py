"""The soak itself: its plan leaves nothing out, it finds what it is to find, and a short one runs through."""

import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.journeys.programs import ROOT, clean_environment
from tests.scenarios.nest import Nest
from tests.services.postgres import find_initdb
from tests.services.redis import find_redis
from tests.soak.claims import CONNECTION_BYTES, GROWTH_BYTES, MB, errors_in, growth
from tests.soak.pace import KEPT_BYTES, ROOM_BYTES, Pace
from tests.soak.plan import KINDS, WAYS, WINDOW_SECONDS, make_plan

GIVE_UP_SECONDS = 400
SELECT_FILES = 1024
"""Of a file with a higher number `select` cannot tell."""
KIND_OF = {"anna": "server", "bert": "server", "carl": "server", "xeni": "coordinator", "yuri": "coordinator"}


def restarts_of(plan):
    return [(KIND_OF.get(one.part, one.part), one.way, one) for one in plan.actions if one.kind == "restart"]


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_of_part_is_ended_both_ways_within_each_ten_minutes(seed):
    plan = make_plan(seed, 1800)

    for window in range(3):
        inside = range(window * WINDOW_SECONDS, (window + 1) * WINDOW_SECONDS)
        ends = {(kind, way) for kind, way, one in restarts_of(plan) if int(one.at) in inside}
        assert ends == {(kind, way) for kind in KINDS for way in WAYS}


@pytest.mark.parametrize("seed", range(20))
def test_one_server_is_left_alone_for_the_last_ten_minutes(seed):
    plan = make_plan(seed, 1800)

    assert plan.elder_from == 1200
    assert not [one for _, _, one in restarts_of(plan) if one.part == plan.elder and one.at >= plan.elder_from]


def test_the_same_seed_makes_the_same_plan_and_another_one_another():
    assert make_plan(7, 600) == make_plan(7, 600)
    assert make_plan(7, 600) != make_plan(8, 600)


def test_an_error_of_an_outage_is_none_and_any_other_is_found():
    outages = [(datetime(2030, 1, 1, 12, 0, 5, tzinfo=UTC).timestamp(), float("inf"))]

    def found(*errors, second="10"):
        traceback = "2030-01-01 12:00:{},000 ERROR a turn failed\nTraceback (most recent call last):\n  File x\n{}\n"
        told = "".join(traceback.format(second, error) for error in errors)
        return list(errors_in(f"{told}2030-01-01 12:00:20,000 INFO next", outages))

    assert not found("psycopg.OperationalError: the connection is lost")
    assert found("psycopg.OperationalError: the connection is lost", second="01")
    assert found("KeyError: 'seq'")
    # One that was an outage's does not speak for the next.
    assert len(found("OperationalError", "KeyError: 'seq'")) == 1
    assert list(errors_in("Unhandled error in Deferred:", outages))
    assert not list(errors_in("INFO nothing of note", outages))


def test_a_server_that_grows_is_told_from_one_that_is_used():
    used = [(at, 100 * MB + (40 * MB if at == 50 else 0), 10) for at in range(100)]
    grown = [(at, 100 * MB + at * MB, 10) for at in range(100)]

    assert growth(used, 10) == (0, GROWTH_BYTES)
    assert growth(grown, 10) == (72 * MB, GROWTH_BYTES)
    assert growth([*used, (100, 100 * MB, 110)], 10) == (0, GROWTH_BYTES + 100 * CONNECTION_BYTES)


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * SELECT_FILES)), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(SELECT_FILES)]
    yield
    for one in opened:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_is_waited_for_with_a_thousand_sockets_open(many_files, tmp_path):
    nest = Nest()
    try:
        started = nest.hatch(["help"], environment=clean_environment(), log=tmp_path / "log")

        assert started.wait(GIVE_UP_SECONDS) == 0
        assert started.poll() == 0
    finally:
        nest.close()


def test_who_reads_too_little_at_a_time_is_late_however_often_it_reads():
    pace = Pace(0.0)

    for second in range(1, 20):
        pace.read(float(second), ROOM_BYTES // 8)

    assert pace.seconds == 8


def test_who_leaves_nothing_is_never_late():
    pace = Pace(0.0)

    for second in range(1, 20):
        pace.read(float(second), 100)
        assert pace.seconds == 1
        pace.emptied(float(second))
    # Nothing came for long, and then a little, which was found half a second after nothing had waited.
    pace.emptied(99.5)
    pace.read(100.0, 100)

    assert pace.seconds == 0.5


def test_lateness_before_a_time_when_nothing_waited_excuses_no_later_end():
    pace = Pace(0.0)

    pace.read(9.0, 100)
    late = pace.seconds
    pace.emptied(9.0)
    pace.read(9.5, 0)

    assert late == 9
    assert pace.seconds == 0.5


def test_lateness_is_told_until_more_was_read_than_could_still_come_of_before_the_end():
    pace = Pace(0.0)
    pace.read(9.0, ROOM_BYTES)

    pace.read(9.1, KEPT_BYTES)
    at_first = pace.seconds
    pace.read(9.2, 1)

    assert at_first == 9
    assert pace.seconds < 1


def test_a_short_soak_ends_each_kind_of_part_once_and_holds():
    find_initdb()
    find_redis()
    options = ["--minutes", "0.35", "--seed", "7", "--sockets", "40", "--burst", "500"]

    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=GIVE_UP_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all holds; --seed 7" in done.stdout
    (restarts,) = re.findall(r"\| restarts \| (.*) \|", done.stdout)
    assert sorted(KIND_OF.get(word.split()[0], word.split()[0]) for word in restarts.split(", ")) == sorted(KINDS)
