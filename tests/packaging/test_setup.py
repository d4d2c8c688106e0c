"""Setting up says in one message what is in the way: an old Python, no venv module, a folder of another's."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534


@pytest.fixture
def checkout():
    """A checkout before its first set-up, open to every account, as pytest's own folders are not."""
    with tempfile.TemporaryDirectory(prefix="qflare-checkout-") as name:
        folder = Path(name)
        for file in ("Makefile", "requirements.txt", "requirements-dev.txt"):
            shutil.copy(ROOT / file, folder)
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def python(tmp_path):
    """Write an interpreter: this one, unless the given shell lines answer first."""

    def write(lines):
        program = tmp_path / "python3"
        program.write_text(f'#!/bin/sh\n{lines}\nexec "{sys.executable}" "$@"\n')
        program.chmod(0o755)
        return program

    return write


def make(target, folder, python="", **options):
    """Run make; return its exit code and what it said."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHON": str(python)}
    command = ["make", "--silent", "--no-print-directory", target]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_an_old_python_is_named_with_what_to_do(checkout, python, version):
    old = python(f"echo {version}; exit")

    code, words = make("demo", checkout, old)

    assert code != 0
    assert f"QFLARE needs Python 3.11 or newer; {old} here is {version}." in words
    assert "apt-get install python3" in words
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_named_too(checkout):
    code, words = make("demo", checkout, "/nowhere/python3")

    assert code != 0
    assert "/nowhere/python3 here is not to be found" in words


def test_a_python_without_its_venv_module_is_told_apart(checkout, python):
    no_venv = 'case "$2" in *ensurepip*) echo "No module named ensurepip" >&2; exit 1 ;; esac'

    code, words = make("demo", checkout, python(no_venv))

    assert code != 0
    assert "comes without its venv module" in words
    assert "apt-get install python3-venv" in words
    assert not (checkout / ".venv").exists()


def test_a_folder_that_one_may_not_write_to_is_named(checkout):
    # Root may write anywhere, so somebody else tries; anybody else loses the right to write to the own folder.
    options = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    checkout.chmod(0o555)

    code, words = make("demo", checkout, sys.executable, **options)

    checkout.chmod(0o755)
    assert code != 0
    assert f"QFLARE cannot write to {checkout}" in words
    assert "Traceback" not in words


def test_nothing_is_done_when_nothing_changed(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    installed = checkout / ".venv/installed"
    installed.mkdir()
    shutil.copy(checkout / "requirements.txt", installed)

    code, words = make("setup", checkout)

    assert (code, words) == (0, "")


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_missing_program_is_a_loud_skip_and_in_continuous_integration_a_failure(checkout, tmp_path, ci, code):
    # A path with the shell's everyday programs and nothing else: no Chromium, no Redis, and no apt-get to install them.
    for name in ("cat", "dirname", "id", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name))

    environment = {"PATH": str(tmp_path), "CI": ci}
    result = subprocess.run([checkout / "scripts/setup-services"], env=environment, capture_output=True, text=True)

    assert result.returncode == code
    # Pictures are files, which a machine may have whatever its path is.
    assert "apt-get install chromium postgresql redis-server" in result.stderr
    assert "SKIPPED" in result.stderr
