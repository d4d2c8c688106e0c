"""Crash-only: the server dies by SIGKILL at every moment of a round, devices die at work, and nothing comes of it.

Each case is a house of its own with the same keys, seeds and data, so what is learned must be the same bits as in a run
that nobody disturbed. All take the full cohort: an update that were lost, or counted twice, would change the digest.
"""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.weights import weights_digest
from edge.wire import decode
from tests.journeys.crash import ROUND
from tests.journeys.house import name_of
from tests.journeys.waiting import wait_for

COHORT = 3
ROUNDS = 3
PLAN = {
    "cohort_size": COHORT,
    "quorum": COHORT,
    "rounds": ROUNDS,
    "deadline_seconds": 600.0,
    # With a state of its own, which must come through as well.
    "strategy": "fedadam",
}
AT_ONCE = 3
"""Cases that are played at the same time: most of one is waiting for processes to start and devices to come back."""


@dataclass(frozen=True)
class Moment:
    """What must be found on the disk when the server has died at a point: that it was this one and no other.

    Attributes:
        state: of the round.
        accepted: updates of the round, at least.
        model: versions that have a row, published or not.
        leftover: pattern of a file that must be there without a row that names it.
    """

    state: str
    accepted: int
    model: int = ROUND - 1
    leftover: str = ""


MOMENTS = {
    "training committed": Moment("training", 0),
    "update being stored": Moment("training", 1),
    "update stored, not committed": Moment("training", 1, leftover=f"updates/{ROUND}/*.safetensors"),
    "update accepted": Moment("training", 1),
    "aggregating committed": Moment("aggregating", COHORT),
    "model half written": Moment("aggregating", COHORT, leftover="models/.*.partial"),
    "model saved": Moment("aggregating", COHORT, leftover="models/*.safetensors"),
    "state saved": Moment("aggregating", COHORT, leftover="models/*.state.safetensors"),
    "evaluating committed": Moment("evaluating", COHORT, model=ROUND),
    "completed committed": Moment("completed", COHORT, model=ROUND),
}


# ── playing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Played:
    """A case that is over: its house, whose programs have ended, and what was found when the server was dead."""

    house: object
    exit_code: int | None = None
    round: dict | None = None
    models: tuple = ()
    accepted: tuple = ()
    unnamed: frozenset = frozenset()


def play_undisturbed(house):
    with house:
        house.serve()
        house.fleet(COHORT)
        house.wait_for_run(house.start_run(**PLAN))
    return Played(house)


def play_with_crash(house, point):
    """Play the run with a server that dies at a point; start it again, on the same port, when it is dead."""
    crashing = {
        "DJANGO_SETTINGS_MODULE": "tests.journeys.crash_settings",
        "JOURNEY_CRASH_AT": point,
        "JOURNEY_MARK": str(house.folder / "crashed"),
    }
    with house:
        server = house.serve(**crashing)
        fleet = house.fleet(COHORT)
        run = house.start_run(**PLAN)
        wait_for(f"the server dies: {point}", lambda: not server.is_running, needs=[fleet])
        found = Played(
            house,
            exit_code=server.wait(),
            round=house.rounds(run)[ROUND - 1],
            models=tuple(house.models(run)),
            accepted=tuple(update for update in house.updates(run) if update["state"] == "accepted"),
            unnamed=frozenset(files_without_a_row(house)),
        )
        house.serve(**crashing)
        house.wait_for_run(run)
    return found


def play_with_death_in_training(house):
    """Play the run with a device that is killed in the middle of its training, and started again."""
    hold = house.folder / "hold"
    hold.touch()
    with house:
        house.serve()
        house.fleet(COHORT - 1, of=COHORT)
        device = house.device(COHORT, of=COHORT, JOURNEY_HOLD=str(hold))
        run = house.start_run(**PLAN)
        house.wait_for_assignment(run, 1, COHORT, "training")
        exit_code = device.kill()
        found = Played(house, exit_code=exit_code, round=house.rounds(run)[0], accepted=tuple(house.updates(run)))
        hold.unlink()
        house.device(COHORT, of=COHORT)
        house.wait_for_run(run)
    return found


def play_with_death_in_upload(house):
    """Play the run with a device that dies as it begins to send its first update, and is started again."""
    with house:
        house.serve()
        house.fleet(COHORT - 1, of=COHORT)
        dying = {"JOURNEY_SIGNAL": "SIGKILL", "JOURNEY_MARK": str(house.folder / "died")}
        device = house.device(COHORT, of=COHORT, **dying)
        run = house.start_run(**PLAN)
        exit_code = device.wait()
        found = Played(
            house,
            exit_code=exit_code,
            round=house.rounds(run)[0],
            accepted=tuple(house.updates(run)),
            unnamed=frozenset(path.name for path in (house.home(COHORT) / "updates").iterdir()),
        )
        house.device(COHORT, of=COHORT, **dying)
        house.wait_for_run(run)
    return found


def files_without_a_row(house):
    """Return the files of weights in storage that no row names, by their names in storage."""
    named = {
        *house.values("SELECT file FROM fl_update"),
        *house.values("SELECT file FROM fl_globalmodel"),
        *house.values("SELECT strategy_state_file FROM fl_globalmodel"),
    }
    storage = house.data / "files"
    for folder in ("updates", "models"):
        for path in (storage / folder).rglob("*"):
            name = path.relative_to(storage).as_posix()
            if path.is_file() and name not in named:
                yield name


UNDISTURBED = "undisturbed"
IN_TRAINING = "a device killed in training"
IN_UPLOAD = "a device killed in upload"
OTHERS = {
    UNDISTURBED: play_undisturbed,
    IN_TRAINING: play_with_death_in_training,
    IN_UPLOAD: play_with_death_in_upload,
}


@pytest.fixture(scope="module")
def cases(request, template, tmp_path_factory):
    """Play all cases that were asked for, a few at a time; each test waits for its own."""
    items = [item for item in request.session.items if item.fspath == request.node.fspath]
    points = [item.callspec.params["point"] for item in items if hasattr(item, "callspec")]

    def play(name):
        house = template.copy_to(tmp_path_factory.mktemp("crash") / "house")
        return OTHERS[name](house) if name in OTHERS else play_with_crash(house, name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, name) for name in [*OTHERS, *points]}


@pytest.fixture
def undisturbed(cases):
    return cases[UNDISTURBED].result()


# ── what must hold ────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_nothing_came_out_otherwise(played, undisturbed):
    """Whatever happened on the way, the run has learned the same bits from the same updates, each counted once."""
    house = played.house
    (run,) = house.values("SELECT id FROM fl_run")

    assert [row["state"] for row in house.rounds(run)] == ["completed"] * ROUNDS
    assert models_of(house) == models_of(undisturbed.house)
    assert updates_of(house) == updates_of(undisturbed.house)
    # One update for each assignment, and each of them accepted, as what the round was told to have says too.
    assert [row["state"] for row in house.assignments(run)] == ["accepted"] * COHORT * ROUNDS
    assert [row["state"] for row in house.updates(run)] == ["accepted"] * COHORT * ROUNDS
    assert told(house, run, "model_aggregation", phase="completed", of="updates_received") == [0] + [COHORT] * ROUNDS
    assert told(house, run, "training_progress", phase="round_completed", of="updates_received") == [COHORT] * ROUNDS
    # The log has no holes, and each acceptance was told once.
    assert house.holes() == []
    accepted = told(house, None, "training_progress", phase="accepted", of="assignment_id")
    assert sorted(accepted) == house.values("SELECT id FROM fl_assignment ORDER BY id")
    # Devices have nothing left to send.
    assert [path for number in range(1, COHORT + 1) for path in (house.home(number) / "updates").glob("*")] == []
    # The newest model is whole, and is what its row says.
    last = house.models(run)[-1]
    weights = decode((house.data / "files" / last["file"]).read_bytes(), spec_of_patient())
    assert weights_digest(weights) == last["digest"]


def models_of(house):
    """Versions with their digests; the name of the strategy state's file has that one's digest in it."""
    rows = house.rows("SELECT version, digest, strategy_state_file, metrics FROM fl_globalmodel ORDER BY version")
    assert len(rows) == ROUNDS + 1
    assert all(row["strategy_state_file"] for row in rows)
    return rows


def updates_of(house):
    return house.rows(
        "SELECT r.number, a.cohort_index, u.digest, u.num_examples, u.norm FROM fl_update u"
        " JOIN fl_assignment a ON a.id = u.assignment_id JOIN fl_round r ON r.id = a.round_id"
        " ORDER BY r.number, a.cohort_index"
    )


def told(house, run, event, *, phase, of):
    stream = "system" if run is None else f"run:{run}"
    rows = house.values("SELECT data FROM fl_event WHERE stream_id = ? AND event = ? ORDER BY seq", stream, event)
    return [data[of] for data in map(json.loads, rows) if data["phase"] == phase]


def spec_of_patient():
    from edge.tasks import find_task, task_spec  # only here: it loads torch

    return task_spec(find_task("linear"))  # the same model


# ── tests ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_undisturbed_run_learns_and_takes_every_update_once(undisturbed):
    assert_nothing_came_out_otherwise(undisturbed, undisturbed)
    first, *_, last = (json.loads(row["metrics"]) for row in models_of(undisturbed.house))
    assert last["loss"] < first["loss"]


@pytest.mark.parametrize("point", MOMENTS)
def test_a_server_killed_at_any_moment_of_a_round_goes_on_and_learns_the_same(cases, undisturbed, point):
    played, expected = cases[point].result(), MOMENTS[point]

    assert played.exit_code == -signal.SIGKILL
    assert played.round["state"] == expected.state
    in_round = [update for update in played.accepted if update["number"] == ROUND]
    assert expected.accepted <= len(in_round) <= COHORT
    assert played.models[-1]["version"] == expected.model
    leftovers = [name for name in played.unnamed if Path(name).match(expected.leftover)] if expected.leftover else []
    assert bool(leftovers) == bool(expected.leftover)

    # What was accepted before is the same row afterwards; only its file may be gone, with its round.
    kept = {update["id"]: update | {"file": ""} for update in played.house.updates(1)}
    assert [kept[update["id"]] for update in played.accepted] == [update | {"file": ""} for update in played.accepted]
    assert_nothing_came_out_otherwise(played, undisturbed)


def test_a_device_killed_in_training_trains_again_and_learns_the_same(cases, undisturbed):
    played = cases[IN_TRAINING].result()

    assert played.exit_code == -signal.SIGKILL
    assert played.round["state"] == "training"
    assert device_of_updates(played) <= {name_of(1), name_of(2)}
    assert_nothing_came_out_otherwise(played, undisturbed)


def test_a_device_killed_in_upload_sends_what_it_had_and_learns_the_same(cases, undisturbed):
    played = cases[IN_UPLOAD].result()

    assert played.exit_code == -signal.SIGKILL
    assert played.round["state"] == "training"
    assert device_of_updates(played) <= {name_of(1), name_of(2)}
    # The finished update was on the device's disk, whole: it is sent, not trained again.
    (assignment,) = (row for row in played.house.assignments(1, 1) if row["name"] == name_of(COHORT))
    assert played.unnamed == {f"{assignment['id']}.json", f"{assignment['id']}.safetensors"}
    _, again = (program for program in played.house.programs if program.name == f"device-{COHORT}")
    assert "Round 1 of run 1: the update is accepted" in again.said()
    assert "Round 1 of run 'a journey' begins" not in again.said()
    assert_nothing_came_out_otherwise(played, undisturbed)


def device_of_updates(played):
    names = dict(map(tuple, (row.values() for row in played.house.rows("SELECT id, name FROM fl_device"))))
    return {names[update["device_id"]] for update in played.accepted}
