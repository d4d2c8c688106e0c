"""Rounds in which something goes wrong, with real devices: what is lost, what comes late, who shares, who is barred."""

import json
import shutil
import signal
from datetime import UTC, datetime
from itertools import pairwise

from tests.journeys.house import name_of
from tests.journeys.waiting import wait_for


def states(house, run, number):
    return {row["name"]: row["state"] for row in house.assignments(run, number)}


def test_a_round_goes_on_without_a_lost_device_which_takes_part_again_when_it_is_back(shared):
    lost = shared.device(3, JOURNEY_HOLD=str(shared.folder / "hold-3"))
    (shared.folder / "hold-3").touch()
    shared.wait_until_online(1, 2, 3)

    # It is killed in the middle of its training: at the deadline the round closes with the quorum.
    run = shared.start_run(cohort_size=3, quorum=2, rounds=2, deadline_seconds=8.0)
    shared.wait_for_assignment(run, 1, 3, "training")
    assert lost.kill() == -signal.SIGKILL
    shared.post(f"/api/v1/runs/{run}/pause/")
    wait_for("round 1 closes", lambda: shared.rounds(run)[0]["state"] == "completed", needs=[shared.server])
    assert states(shared, run, 1) == {name_of(1): "accepted", name_of(2): "accepted", name_of(3): "expired"}
    first = shared.rounds(run)[0]
    assert first["closed_at"] >= first["deadline_at"]

    # The paused run opens no round until it is resumed, and the device is back by then.
    assert (shared.run(run)["state"], len(shared.rounds(run))) == ("paused", 1)
    (shared.folder / "hold-3").unlink()
    shared.device(3)
    shared.wait_until_online(1, 2, 3)
    shared.post(f"/api/v1/runs/{run}/resume/")
    shared.wait_for_run(run)
    assert set(states(shared, run, 2).values()) == {"accepted"}
    assert len(states(shared, run, 2)) == 3


def test_a_device_that_would_come_too_late_counts_where_the_deadline_is_extended(shared):
    hold = shared.folder / "hold-slow"
    hold.touch()
    shared.device(3, JOURNEY_HOLD=str(hold))
    shared.wait_until_online(1, 2, 3)

    # Without all three the round would fail at its deadline.
    run = shared.start_run(cohort_size=3, quorum=3, rounds=1, deadline_seconds=8.0)
    shared.wait_for_assignment(run, 1, 3, "training")
    (first,) = shared.rounds(run)
    answer = shared.post(f"/api/v1/runs/{run}/extend-deadline/", {"seconds": 600})
    assert "extend_deadline" in answer["actions"]
    wait_for("the first deadline passes", lambda: f"{datetime.now(UTC):%F %T.%f}" > first["deadline_at"])
    hold.unlink()

    shared.wait_for_run(run)
    assert set(states(shared, run, 1).values()) == {"accepted"}
    assert shared.rounds(run)[0]["closed_at"] > first["deadline_at"]


def test_a_late_update_keeps_its_manifest_only(shared):
    mark = shared.folder / "stopped"
    late = shared.device(3, JOURNEY_SIGNAL="SIGSTOP", JOURNEY_MARK=str(mark))
    shared.wait_until_online(1, 2, 3)

    # A device stands still with its update in its hands, until the round has closed without it.
    run = shared.start_run(cohort_size=3, quorum=2, rounds=1, deadline_seconds=8.0, keep_updates=True)
    wait_for("the device stands still", lambda: mark.exists() and late.is_stopped)
    shared.wait_for_run(run, needs=[shared.server])
    (assignment,) = (row for row in shared.assignments(run) if row["name"] == name_of(3))
    assert assignment["state"] == "expired"
    before = shared.models(run)

    late.send(signal.SIGCONT)
    late_one = shared.wait_for_assignment(run, 1, 3, "late")
    (update,) = (row for row in shared.updates(run) if row["assignment_id"] == late_one["id"])
    assert (update["state"], update["file"], update["code"]) == ("late", "", "")
    manifest = json.loads(update["manifest"])
    assert manifest["assignment_id"] == late_one["id"]
    assert manifest["update_digest"] == update["digest"]
    assert update["num_examples"] == manifest["num_examples"] > 0
    stored = {path.name for path in (shared.data / "files" / "updates").rglob("*") if path.is_file()}
    assert not any(update["digest"] in name for name in stored)
    # The two that came in time were kept, as this run wishes.
    in_time = [row for row in shared.updates(run) if row["state"] == "accepted"]
    assert {row["file"].rpartition("/")[2] for row in in_time} <= stored
    assert shared.models(run) == before
    # The answer ended it: the device has nothing left to send.
    home = shared.home(3)
    wait_for("the device lets go of its update", lambda: not list((home / "updates").iterdir()), needs=[late])
    assert late.is_running


def test_a_device_trains_on_while_the_server_is_dead_and_the_run_completes(shared):
    device = shared.device(3, JOURNEY_HOLD=str(shared.hold))
    shared.wait_until_online(1, 2, 3)

    with shared.held():
        run = shared.start_run(cohort_size=3, rounds=2, deadline_seconds=600.0)
        for number in (1, 2, 3):
            shared.wait_for_assignment(run, 1, number, "training")
        assert shared.server.kill() == -signal.SIGKILL
    # No socket, and training ends nevertheless: the finished update waits on the device's disk.
    updates = shared.home(3) / "updates"
    wait_for("the update is finished", lambda: list(updates.glob("*.json")), needs=[device])
    assert shared.updates(run) == []

    shared.serve()
    shared.wait_for_run(run)
    assert {row["state"] for row in shared.assignments(run)} == {"accepted"}
    assert [row["number"] for row in shared.updates(run)] == [1, 1, 1, 2, 2, 2]
    assert device.is_running
    assert shared.holes() == []


def test_two_runs_share_the_fleet_and_take_turns(shared):
    # Both want both devices, and three rounds of them.
    with shared.held():
        first = shared.start_run(name="first", cohort_size=2, rounds=3)
        shared.wait_for_assignment(first, 1, 1, "training")
        second = shared.start_run(name="second", cohort_size=2, rounds=3)
        wait_for("the second run waits", lambda: reason_of_newest_round(shared, second), needs=[shared.server])
        assert reason_of_newest_round(shared, second) == "waiting for devices: 0 of 2 ready"
    shared.wait_for_run(first)
    shared.wait_for_run(second)

    rounds = shared.rounds(first) + shared.rounds(second)
    assert [row["state"] for row in rounds] == ["completed"] * 6
    served = [row["run_id"] for row in sorted(rounds, key=lambda row: row["started_at"])]
    assert served == [first, second] * 3
    # No device ever worked for both: an assignment ends before the device's next begins.
    for number in (1, 2):
        parts = [row for run in (first, second) for row in shared.assignments(run) if row["name"] == name_of(number)]
        parts.sort(key=lambda row: row["assigned_at"])
        assert [row["state"] for row in parts] == ["accepted"] * 6
        assert all(one["ended_at"] <= next_["assigned_at"] for one, next_ in pairwise(parts))


def reason_of_newest_round(house, run):
    rounds = house.rounds(run)
    return rounds[-1]["reason"] if rounds else ""


def test_a_revoked_device_is_sent_away_at_once_and_the_run_goes_on(shared):
    revoked = shared.device(5, JOURNEY_HOLD=str(shared.hold))
    shared.wait_until_online(1, 2, 5)
    with shared.held():
        run = shared.start_run(cohort_size=3, quorum=2, rounds=2, cohort_wait_seconds=0.5, deadline_seconds=600.0)
        shared.wait_for_assignment(run, 1, 5, "training")
        (device_id,) = shared.values("SELECT id FROM fl_device WHERE name = ?", name_of(5))
        answer = shared.post(f"/api/v1/devices/{device_id}/revoke/", {"reason": "it was stolen"})
        assert answer["state"] == "revoked"

        # Its training is still held: it is the close code that ends it, with the exit code of that cause.
        assert revoked.wait() == 4
    assert "It was stolen (close code 4505)" in revoked.said()

    # Its part is cancelled, the round does not wait for the deadline, and the next is opened without it.
    shared.wait_for_run(run)
    assert states(shared, run, 1) == {name_of(1): "accepted", name_of(2): "accepted", name_of(5): "cancelled"}
    assert states(shared, run, 2) == {name_of(1): "accepted", name_of(2): "accepted"}

    # It is not let in again.
    again = shared.device(5)
    assert again.wait() == 4
    assert "close code 4505" in again.said()


def test_a_device_follows_a_server_that_was_restored_from_an_older_copy(house):
    # The copy is taken before the device's first run, so the device has seen more events than the log then holds.
    shutil.copytree(house.data, house.folder / "copy")
    house.serve()
    device = house.device(1)
    house.wait_for_run(house.start_run(cohort_size=1, rounds=2))
    house.server.kill()
    shutil.rmtree(house.data)
    shutil.move(house.folder / "copy", house.data)

    house.serve()
    house.wait_until_online(1)
    run = house.start_run(cohort_size=1, rounds=2, seed=8)

    house.wait_for_run(run)
    assert [row["state"] for row in house.assignments(run)] == ["accepted", "accepted"]
    assert device.is_running
    assert house.holes() == []
