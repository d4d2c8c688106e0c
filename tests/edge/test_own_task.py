"""A task of one's own, from a module outside the packages: by the setting, and by an entry point."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "tasks.md"

CLOUDS = """
import numpy as np

from edge.partition import indices_for
from edge.tasks import ClassificationTask, Examples


class Clouds(ClassificationTask):
    name = "clouds"
    description = "Tell two clouds of points in the plane apart."

    def build_model(self):
        from torch import nn

        return nn.Linear(2, 2)

    def training_examples(self, source):
        import torch

        random = np.random.RandomState(1)
        y = np.arange(200) % 2
        x = random.standard_normal((200, 2)) + 6 * y[:, None]
        if source.partition is not None:
            mine = indices_for(y, source.partition)
            x, y = x[mine], y[mine]
        return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


class Impostor(Clouds):
    name = "digits"


class Nameless(Clouds):
    name = "Two Clouds"


class Half(ClassificationTask):
    name = "half"


NOT_A_CLASS = 3
"""

LIST = """
import json
from edge.tasks import available_tasks, find_task
print(json.dumps({"known": sorted(available_tasks()), "module": type(find_task("clouds")).__module__}))
"""

TRAIN = """
import json
from dataclasses import replace
from edge.partition import Partition
from edge.tasks import DataSource, find_task, initial_weights, task_digest
from edge.training import train
task = find_task("clouds")
examples = task.training_examples(DataSource(partition=Partition.parse("dirichlet:1:0/2:3")))
settings = replace(task.defaults, local_epochs=20, proximal_mu=0.01)
result = train(task, examples, initial_weights(task, 0), settings, lambda progress: None, lambda: False)
print(json.dumps({"accuracy": result.metrics["accuracy"], "delta": sorted(result.delta),
                  "digest": task_digest(task), "test": task.test_examples()}))
"""

REFUSED = """
from edge.tasks import InvalidTask, available_tasks, find_task
print(find_task("digits").name)
try:
    available_tasks()
except InvalidTask as error:
    print(error)
"""


@pytest.fixture
def outside(tmp_path):
    """A folder outside the project with the module `own_clouds`."""
    (tmp_path / "own_clouds.py").write_text(CLOUDS)
    return tmp_path


def install_entry_point(folder, name, value):
    """Lay down what installing a package called `clouds` with this entry point would."""
    info = folder / "clouds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clouds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[qflare.tasks]\n{name} = {value}\n")


def run_python(code, folder, tasks=None):
    environment = {"PATH": "", "PYTHONPATH": f"{ROOT}:{folder}", **({"QFLARE_TASKS": tasks} if tasks else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def declare(how, folder):
    """Declare the task by one of the two roads, and return the setting that goes with it."""
    if how == "setting":
        return "own_clouds:Clouds"
    install_entry_point(folder, "clouds", "own_clouds:Clouds")
    return None


@pytest.mark.parametrize("how", ["setting", "entry point"])
def test_a_task_of_one_s_own_is_listed_beside_the_others(outside, how):
    tasks = declare(how, outside)

    listed = json.loads(run_python(LIST, outside, tasks))

    assert listed == {"known": ["clouds", "digits", "digits-cnn", "fashion-mnist", "linear"], "module": "own_clouds"}


@pytest.mark.parametrize("how", ["setting", "entry point"])
def test_a_task_of_one_s_own_is_partitioned_trained_and_measured(outside, how):
    tasks = declare(how, outside)

    learned = json.loads(run_python(TRAIN, outside, tasks))

    assert learned["accuracy"] > 0.95
    assert learned["delta"] == ["bias", "weight"]
    assert len(learned["digest"]) == 64
    assert learned["test"] is None


def test_a_task_may_be_declared_by_both_roads(outside):
    install_entry_point(outside, "clouds", "own_clouds:Clouds")

    assert json.loads(run_python(LIST, outside, " own_clouds:Clouds , own_clouds:Clouds,"))["module"] == "own_clouds"


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("own_clouds", "write package.module:Class"),
        ("own_clouds:Cloudy", "has no attribute 'Cloudy'"),
        ("own_cloud:Clouds", "No module named 'own_cloud'"),
        ("own_broken:Clouds", "RuntimeError: no licence"),
        ("own_clouds:NOT_A_CLASS", "3 is no subclass of edge.tasks.Task"),
        ("own_clouds:Half", "Half lacks build_model, training_examples"),
        ("own_clouds:Nameless", "1 to 50 lower case letters"),
        ("own_clouds:Impostor", "the name 'digits' is taken by Digits"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_with_where_and_why_and_the_others_go_on(outside, setting, why):
    (outside / "own_broken.py").write_text("raise RuntimeError('no licence')\n")

    built_in, refusal = run_python(REFUSED, outside, setting).splitlines()

    assert built_in == "digits"
    assert f"{setting!r} in QFLARE_TASKS" in refusal
    assert why in refusal


def test_an_entry_point_has_the_name_of_its_task(outside):
    install_entry_point(outside, "cumulus", "own_clouds:Clouds")

    refusal = run_python(REFUSED, outside).splitlines()[1]

    assert "the entry point cumulus = own_clouds:Clouds" in refusal
    assert "its name is 'clouds'" in refusal


def test_the_example_in_the_document_works(tmp_path):
    """The first block of Python in docs/tasks.md is a whole task, on data made by its second block."""
    first, second = (block.partition("```")[0] for block in DOCUMENT.read_text().split("```python\n")[1:3])
    (tmp_path / "leaves.py").write_text(first)
    code = f"""
import os
os.chdir({str(tmp_path)!r})
{second}
from dataclasses import replace
from pathlib import Path
from edge.tasks import DataSource, find_task, initial_weights
from edge.training import train
task = find_task("leaves")
examples = task.training_examples(DataSource(folder=Path.cwd()))
settings = replace(task.defaults, local_epochs=30)
result = train(task, examples, initial_weights(task, 0), settings, lambda progress: None, lambda: False)
print(result.num_examples, result.metrics["accuracy"])
"""

    num_examples, accuracy = run_python(code, tmp_path, "leaves:Leaves").split()

    assert int(num_examples) > 0
    assert float(accuracy) > 0.9
