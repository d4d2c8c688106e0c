"""What is learned, by whom, and who has it afterwards: convergence, models on devices, a task of one's own."""

import json
import sys

from edge.tasks import find_task, task_spec
from edge.training import evaluate
from edge.weights import weights_digest
from edge.wire import decode
from fl.cohorts import select_cohort
from fl.seeds import cohort_seed
from tests.journeys.house import DEVICES, name_of
from tests.journeys.waiting import wait_for


def test_a_run_on_real_digits_converges_as_the_server_measures_from_round_0_on(house):
    house.serve()
    house.fleet(DEVICES, task="digits", partition="dirichlet:0.3:0/{of}:7")
    run = house.start_run(task="digits", cohort_size=DEVICES, rounds=10, local_epochs=5)
    house.wait_for_run(run)

    models = house.get(f"/api/v1/runs/{run}/models/").json()["results"]
    assert [model["version"] for model in models] == list(range(11))
    accuracies = [model["metrics"]["accuracy"] for model in models]
    assert accuracies[0] < 0.3
    assert accuracies[-1] >= 0.90
    best = max(models, key=lambda model: model["metrics"]["accuracy"])
    assert house.get(f"/api/v1/runs/{run}/models/best/").json()["metrics"] == best["metrics"]

    # What can be downloaded is what was measured: measured here, it is as good.
    task = find_task("digits")
    weights = decode(house.get(f"/api/v1/runs/{run}/models/last/weights/").content, task_spec(task))
    assert weights_digest(weights) == models[-1]["digest"]
    assert evaluate(task, weights, task.test_examples()) == models[-1]["metrics"]


REMEMBER = """
import os, sys
facts = [os.environ[f"QFLARE_MODEL_{name}"] for name in ("RUN", "TASK", "VERSION", "DIGEST", "PATH")]
with open(sys.argv[1], "a") as file:
    print(*facts, sep=",", file=file)
"""


def test_a_device_outside_the_cohort_has_each_new_model_at_once_and_its_owner_s_command_runs(shared, tmp_path):
    (tmp_path / "remember.py").write_text(REMEMBER)
    remembered = tmp_path / "remembered"
    command = f"{sys.executable} {tmp_path / 'remember.py'} {remembered}"
    bystander = shared.device(3, options=["--on-model", command])
    shared.wait_until_online(1, 2, 3)
    everybody = [name_of(number) for number in (1, 2, 3)]

    def is_left_out(seed):
        cohorts = [select_cohort(everybody, 1, cohort_seed(seed, number)) for number in (1, 2)]
        return [name_of(3)] not in cohorts

    # Every round is held until the bystander has the model before it.
    seed = next(seed for seed in range(1000) if is_left_out(seed))
    with shared.held():
        run = shared.start_run(cohort_size=1, rounds=2, seed=seed)
        assert_keeps(shared, run, 0, bystander)
    shared.wait_for_run(run)
    assert_keeps(shared, run, 2, bystander)
    assert {row["name"] for row in shared.assignments(run)} <= {name_of(1), name_of(2)}

    # The command heard of models in rising order, up to the last, with what it needs to use them.
    path = shared.home(3) / "models" / f"run-{run}.safetensors"
    digests = {model["version"]: model["digest"] for model in shared.models(run)}
    wait_for("the command ran", lambda: remembered.exists() and f"{run},patient,2," in remembered.read_text())
    lines = [line.split(",") for line in remembered.read_text().splitlines()]
    mine = [(int(version), digest, file) for number, _, version, digest, file in lines if number == str(run)]
    assert [version for version, _, _ in mine] == sorted({version for version, _, _ in mine})
    assert all((digests[version], str(path)) == (digest, file) for version, digest, file in mine)
    # The devices that trained keep it too.
    for number in (1, 2):
        assert_keeps(shared, run, 2, bystander, number)


def assert_keeps(house, run, version, program, number=3):
    """Wait until a device has a version of a run's model as a file, and make sure that it is that model."""
    folder = house.home(number) / "models"
    note = folder / f"run-{run}.json"

    def is_there():
        return note.exists() and json.loads(note.read_text())["version"] == version

    wait_for(f"device {number} keeps version {version}", is_there, needs=[program, house.server])
    (model,) = (model for model in house.models(run) if model["version"] == version)
    kept = json.loads(note.read_text())
    assert (kept["digest"], kept["task"]) == (model["digest"], "patient")
    weights = decode((folder / kept["file"]).read_bytes(), task_spec(find_task("linear")))
    assert weights_digest(weights) == model["digest"]


CLOUDS = """
import numpy as np
import torch
from torch import nn

from edge.tasks import ClassificationTask, Examples


class Clouds(ClassificationTask):
    name = "clouds"
    description = "Tell two clouds of points in the plane apart; the server has none of them."

    def build_model(self):
        return nn.Linear(2, 2)

    def training_examples(self, source):
        points = np.load(source.folder / "clouds.npz", allow_pickle=False)
        return Examples(torch.from_numpy(points["x"]), torch.from_numpy(points["y"]))
"""

POINTS = """
import sys, numpy
random = numpy.random.RandomState(3)
y = numpy.arange(120) % 2
x = random.standard_normal((120, 2)) + 5 * y[:, None]
numpy.savez(sys.argv[1], x=x.astype("float32"), y=y)
"""


def test_a_task_of_one_s_own_is_declared_on_both_sides_and_trained_over_the_wire(template, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "own_clouds.py").write_text(CLOUDS)
    own = {"PYTHONPATH": str(tmp_path / "outside"), "QFLARE_TASKS": "own_clouds:Clouds"}
    data = tmp_path / "data"
    data.mkdir()

    with template.copy_to(tmp_path / "house", **own) as house:
        points = house.start("points", "-c", POINTS, data / "clouds.npz")
        house.serve()
        assert points.wait() == 0
        device = house.device(1, task="clouds", options=["--data", data])
        run = house.start_run(task="clouds", cohort_size=1, rounds=4, local_epochs=5, learning_rate=0.1)
        house.wait_for_run(run)
        assert device.is_running

        # The server has no data of it, says so, and takes the device's own metrics to tell the best.
        tasks = {task["name"]: task for task in house.get("/api/v1/tasks/").json()}
        assert "clouds" in tasks
        models = house.get(f"/api/v1/runs/{run}/models/").json()["results"]
        assert [model["metrics"] for model in models] == [None] * 5
        rounds = house.get(f"/api/v1/runs/{run}/rounds/").json()["results"]
        assert rounds[-1]["device_metrics"]["accuracy"]["mean"] > 0.95
        accuracies = [round_["device_metrics"]["accuracy"]["mean"] for round_ in rounds]
        (best,) = (model for model in models if model["is_best"])
        assert accuracies[best["version"] - 1] == max(accuracies)
        assert {update["num_examples"] for update in house.updates(run)} == {120}
