"""The wheel holds `edge` alone, and a device that installs it learns without Django anywhere near."""

import email
import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "var")

LEARN = """
import json
from pathlib import Path

import edge
from edge.tasks import DataSource, find_task, initial_weights
from edge.training import TrainingSettings, evaluate, train
from edge.weights import norm

task = find_task("linear")
weights = initial_weights(task, seed=0)
settings = TrainingSettings(local_epochs=5, batch_size=16, learning_rate=0.05)
examples = task.training_examples(DataSource())
result = train(task, examples, weights, settings, lambda progress: None, lambda: False)
learned = {name: tensor + result.delta[name] for name, tensor in weights.items()}
print(json.dumps({
    "edge": str(Path(edge.__file__)),
    "before": evaluate(task, weights, examples)["loss"],
    "after": evaluate(task, learned, examples)["loss"],
    "norm": norm(result.delta),
    "digits": len(find_task("digits").training_examples(DataSource())),
}))
"""


def run(*command, **options):
    """Run a program to its end; when it fails, its words are in the assertion."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the whole checkout, so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "checkout", ignore=NOT_SOURCE)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run(*build, "--outdir", folder, cwd=folder / "checkout")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device(wheel, tmp_path_factory):
    """The folder of programs of an environment that has what the wheel asks for, the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("device")
    run(sys.executable, "-m", "venv", folder)
    programs = folder / "bin"
    packages = Path(run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for name in required_distributions(wheel):
        link_distribution(name, packages)
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return programs


def required_distributions(wheel):
    """Return the names of all distributions that the wheel needs here, directly or through others."""
    found = set()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    waiting = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(key)
        for text in importlib.metadata.requires(wanted.name) or []:
            deeper = Requirement(text)
            if not deeper.marker or any(deeper.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                deeper.marker = None
                waiting.append(deeper)
    return {name for name, _ in found}


def link_distribution(name, packages):
    """Link what a distribution put at the top of this environment's packages into another's."""
    distribution = importlib.metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        source, target = Path(distribution.locate_file(top)), packages / top
        # Several distributions may share a namespace folder: the first link has them all. What the new environment
        # brings itself, such as setuptools, stays.
        if not target.exists():
            target.symlink_to(source.resolve(), target_is_directory=source.is_dir())


def test_the_wheel_holds_edge_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.split("/")[0] for name in names}

    assert tops == {"edge", next(top for top in tops if top.endswith(".dist-info"))}
    in_checkout = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edge").rglob("*.py")}
    assert in_checkout == {name for name in names if name.endswith(".py")}
    assert {"edge/py.typed", "edge/tasks/data/digits.npz"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("module", ["django", "channels", "rest_framework", "daphne", "fl", "realtime", "qflare"])
def test_a_device_has_nothing_of_the_server(device, tmp_path, module):
    result = subprocess.run([device / "python", "-c", f"import {module}"], cwd=tmp_path, capture_output=True, text=True)

    assert f"ModuleNotFoundError: No module named '{module}'" in result.stderr


def test_a_device_has_all_that_the_wheel_asks_for(device, tmp_path):
    assert "No broken requirements found" in run(device / "python", "-m", "pip", "check", cwd=tmp_path)


def test_the_command_of_the_wheel_explains_itself(device, tmp_path):
    words = run(device / "qflare-edge", "--help", cwd=tmp_path)

    assert {"enroll", "run", "fleet"} <= set(words.split())


def test_a_device_learns_from_the_wheel_alone(device, tmp_path):
    learned = json.loads(run(device / "python", "-c", LEARN, cwd=tmp_path))

    assert Path(learned["edge"]).is_relative_to(device.parent)
    assert learned["after"] < learned["before"] / 2
    assert learned["norm"] > 0
    assert learned["digits"] > 1000
