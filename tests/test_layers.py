"""The layers hold, and the contracts in pyproject.toml notice when they do not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINTER = Path(sys.executable).with_name("lint-imports")


def lint(folder):
    """Run import-linter on the packages in `folder`; return its exit code and what it said."""
    command = [LINTER, "--no-logo", "--no-cache"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def copy_of_the_packages(tmp_path):
    """A copy of the four packages with their contracts, to break."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("qflare", "realtime", "fl", "edge"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_package_imports_only_those_to_its_right():
    code, words = lint(ROOT)

    assert code == 0, words


@pytest.mark.parametrize(
    ("package", "line", "broken"),
    [
        ("edge", "import fl.lifecycle", "qflare → realtime → fl → edge"),
        ("fl", "import realtime.apps", "qflare → realtime → fl → edge"),
        ("realtime", "import qflare.settings", "qflare → realtime → fl → edge"),
        ("edge", "import django.db", "What a device runs knows nothing of the server's frameworks"),
        ("fl/strategies", "import fl.models", "Mathematics and decisions reach no framework"),
        ("fl", "import channels.layers", "fl does not import channels"),
        ("realtime", "import torch", "realtime does no arithmetic"),
    ],
)
def test_an_import_against_the_grain_is_found(copy_of_the_packages, package, line, broken):
    (copy_of_the_packages / package / "against_the_grain.py").write_text(f"{line}\n")

    code, words = lint(copy_of_the_packages)

    assert code == 1
    assert any(broken in row and "BROKEN" in row for row in words.splitlines()), words


def test_a_cycle_between_two_modules_is_found(copy_of_the_packages):
    (copy_of_the_packages / "edge/hen.py").write_text("import edge.egg\n")
    (copy_of_the_packages / "edge/egg.py").write_text("import edge.hen\n")

    code, words = lint(copy_of_the_packages)

    assert code == 1
    assert any("No cycles" in row and "BROKEN" in row for row in words.splitlines()), words
