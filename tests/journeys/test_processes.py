"""Several processes and services that die: what one process records all tell, in order and once, whoever goes away.

The tests share an installation and go on with it as they find it: each leaves all parts running.
"""

import time
from contextlib import ExitStack
from functools import partial

import pytest

from edge.protocol.close_codes import CloseCode
from tests.journeys.handmade import Handmade
from tests.journeys.house import name_of
from tests.journeys.installation import (
    COORDINATORS,
    KINDS,
    LEASE_SECONDS,
    RECHECK_SECONDS,
    TRUST_SECONDS,
    beating,
    installed,
)
from tests.journeys.waiting import wait_for
from tests.services.postgres import restartable_cluster
from tests.services.redis import RedisServer, find_redis

WORKERS = 3
"""Devices that train: two at anna, one at bert."""
PLAN = {"cohort_size": WORKERS, "quorum": WORKERS, "rounds": 3, "deadline_seconds": 600.0}


@pytest.fixture(scope="module")
def postgres():
    with restartable_cluster() as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = RedisServer(find_redis(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory, postgres, redis):
    with installed(tmp_path_factory.mktemp("processes") / "house", postgres, redis) as house:
        house.fleet(WORKERS - 1, of=WORKERS, JOURNEY_HOLD=str(house.hold))
        house.at("bert").device(WORKERS, of=WORKERS, JOURNEY_HOLD=str(house.hold))
        house.wait_until_online(*range(1, WORKERS + 1))
        yield house


@pytest.fixture
def listeners(house):
    """A dashboard's socket at each server."""
    with ExitStack() as sockets:
        yield {name: sockets.enter_context(house.at(name).listener()) for name in KINDS}


def wait_until_healthy(house, layer="ok"):
    """Wait until each server says that the database is there, and how the layer is."""

    def says_so(server):
        answer = server.answer("/api/v1/health/")
        return answer.status_code == 200 and answer.json() == {"database": "ok", "layer": layer}

    for name in KINDS:
        wait_for(f"{name} says that the layer is {layer}", partial(says_so, house.at(name)), needs=[house.parts[name]])


def assert_each_round_was_made_once(house, run):
    """Every round has one aggregation that was told to start and one that completed, and one model."""
    rounds = range(1, PLAN["rounds"] + 1)
    told = house.aggregations(run)
    assert [phase for number, phase in told if number == 0] == ["completed"]
    assert [entry for entry in told if entry[0]] == [(n, phase) for n in rounds for phase in ("started", "completed")]
    assert [model["version"] for model in house.models(run)] == [0, *rounds]
    assert [row["state"] for row in house.rounds(run)] == ["completed"] * len(rounds)
    assert house.holes() == []


# ── one log, many processes ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_any_process_records_is_told_in_order_by_all(house, listeners):
    run = house.at("bert").start_run(**PLAN)
    for listener in listeners.values():
        listener.read_until("fl_status_update", run_id=run, state="completed")
    house.at("carl").say("the end")
    for listener in listeners.values():
        listener.read_until_said("the end")

    stream = f"run:{run}"
    assert len({str(listener.heard[stream]) for listener in listeners.values()}) == 1
    assert listeners["anna"].heard[stream][0][0] == 1
    assert_each_round_was_made_once(house, run)


def test_who_leaves_one_process_goes_on_at_another_where_it_stood(house):
    with house.held(), house.at("anna").listener() as left:
        run = house.start_run(**PLAN)
        left.read_until("fl_status_update", run_id=run, state="running", round_state="training")
    positions = left.positions()
    house.wait_for_run(run)

    with house.at("carl").listener(since=positions) as found:
        found.read_until("fl_status_update", run_id=run, state="completed")

    stream = f"run:{run}"
    seqs = [seq for listener in (left, found) for seq, _, _ in listener.heard[stream]]
    assert seqs == list(range(1, len(seqs) + 1))


# ── one device, two processes ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_newer_connection_at_another_process_ends_the_older_and_its_late_end_changes_nothing(house):
    with Handmade(house.at("anna"), 4) as older, Handmade(house.at("bert"), 4) as newer, beating(older, newer):
        older.connect()
        first, offline = house.lease(older.account.device_id), house.told_offline()
        newer.connect()

        _, code = older.read_to_the_end()
        taken = house.lease(newer.account.device_id)
        assert code == CloseCode.REPLACED
        assert taken["connection_id"] != first["connection_id"]

        # Renewed past the time that a late end would have left it.
        lapses = taken["lease_until"].timestamp() + LEASE_SECONDS
        wait_for("the lease is renewed", lambda: house.lease(4)["lease_until"].timestamp() > lapses)
        kept = house.lease(4)
        assert (kept["connection_id"], kept["closed_at"]) == (taken["connection_id"], None)
        assert house.told_offline() == offline


# ── coordinators ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_coordinator_that_dies_as_it_begins_to_aggregate_is_replaced_and_each_round_is_made_once(house):
    house.mark.unlink()
    run = house.start_run(**PLAN)

    wait_for("a coordinator dies", lambda: any(not house.parts[name].is_running for name in COORDINATORS))
    (dead,) = (name for name in COORDINATORS if not house.parts[name].is_running)
    house.wait_for_run(run, needs=[])

    assert house.parts[dead].wait() == -9
    assert_each_round_was_made_once(house, run)
    house.programs.remove(house.parts[dead])
    house.begin_coordinator(dead)
    house.wait_until_begun(dead)


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_redis_sockets_stay_and_events_come_by_the_log(house, listeners, redis):
    wait_until_healthy(house)
    redis.stop()
    wait_until_healthy(house, layer="away")

    house.at("bert").say("without Redis")
    for listener in listeners.values():
        listener.read_until_said("without Redis")

    # A process that dies, with a device at it, and begins without Redis; and a device that moves between processes.
    lease, offline = house.lease(WORKERS), house.told_offline()
    house.parts["bert"].kill()
    assert listeners["bert"].read_to_the_end() is None
    house.programs.remove(house.parts["bert"])
    house.begin_server("bert")
    house.wait_until_begun("bert")
    with (
        house.at("bert").listener(since=listeners["bert"].positions()) as found,
        Handmade(house.at("anna"), 4) as older,
        Handmade(house.at("bert"), 4) as newer,
        beating(older, newer),
    ):
        older.connect()
        newer.connect()
        assert older.read_to_the_end()[1] == CloseCode.REPLACED
        house.at("carl").say("still without Redis")
        found.read_until_said("still without Redis")

        redis.start()
        wait_until_healthy(house)
        house.at("bert").say("with Redis")
        for listener in (found, listeners["anna"], listeners["carl"]):
            listener.read_until_said("with Redis")

    def is_back():
        newer = house.lease(WORKERS)
        return newer and newer["connection_id"] != lease["connection_id"]

    wait_for("the device of the process that died is back", is_back, needs=house.running)
    assert house.told_offline()[len(offline) :].count(name_of(WORKERS)) <= 1


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_goes_on_when_postgresql_was_started_anew(house, postgres):
    with house.at("carl").listener() as listener, house.held():
        run = house.start_run(**PLAN)
        listener.read_until("fl_status_update", run_id=run, state="running", round_state="training")

        postgres.stop()
        house.let_go()
        postgres.start()

        house.wait_for_run(run)
    assert_each_round_was_made_once(house, run)


def test_without_postgresql_requests_say_so_devices_stay_and_people_only_for_a_while(house, listeners, postgres):
    wait_for("who left earlier is offline", lambda: house.lease(4) is None)
    offline = house.told_offline()
    with Handmade(house.at("carl"), 5) as device, beating(device), house.held():
        device.connect(tasks=[])  # it is never selected
        run = house.start_run(**PLAN)
        for listener in listeners.values():
            listener.read_until("fl_status_update", run_id=run, state="running", round_state="training")
        lease = house.lease(5)

        postgres.stop()
        stopped = time.monotonic()
        house.let_go()
        for name in KINDS:
            assert_refuses_for_now(house.at(name))
        closed = [listener.read_to_the_end() for listener in listeners.values()]
        away = time.monotonic() - stopped
        postgres.start()

        # Long enough for every lease to have run out, and all trust.
        assert closed == [CloseCode.EXPIRED] * len(KINDS)
        assert away > TRUST_SECONDS - 2 * RECHECK_SECONDS > LEASE_SECONDS
        house.wait_for_run(run)
        renewed = lease["lease_until"].timestamp() + away + LEASE_SECONDS
        wait_for("the device's lease is renewed", lambda: house.lease(5)["lease_until"].timestamp() > renewed)
        assert house.lease(5)["connection_id"] == lease["connection_id"]
    assert_each_round_was_made_once(house, run)
    assert house.told_offline() == offline
    wait_until_healthy(house)


def assert_refuses_for_now(server):
    """Make sure that requests fail in the one shape, with what to do, and pages in words."""
    for path in ("/api/v1/runs/", "/api/v1/health/"):
        answer = server.answer(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), path
        assert answer.json()["error"]["code"] == "database_away"
        assert "try again" in answer.json()["error"]["action"]
    page = server.answer("/runs/")
    assert page.status_code == 503
    assert page.headers["Content-Type"].startswith("text/html")
    assert "Traceback" not in page.text
    assert "Not now" in page.text
