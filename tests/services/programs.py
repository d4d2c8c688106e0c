"""Finds the programs that tests start, says loudly when one is missing, and gives their threads signals."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def give_up(reason, *, in_continuous_integration) -> NoReturn:
    """End the test: as skipped, or as failed where every test has to run."""
    if in_continuous_integration:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find_program(names, package, folders=()):
    """Return the path of the first of `names` that is on the path or in `folders`.

    Where none is, the test is skipped with what to install; in continuous integration (CI=true) it fails instead,
    since a test that nobody ran proves nothing.

    Args:
        names: file names, the preferred one first.
        package: Debian's package that holds the program.
        folders: glob patterns of further folders; of several that match, the last in order is asked first.
    """
    candidates = [folder for pattern in folders for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)]
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, candidates)])
    for name in names:
        if found := shutil.which(name, path=search_path):
            return Path(found)
    reason = f"{names[0]} is not on this machine; install it (Debian, Ubuntu: apt-get install {package}) and run again"
    give_up(reason, in_continuous_integration=os.environ.get("CI") == "true")


def signal_another_thread(pid, number):
    """Give a signal to a thread of a process that is not its main one, as the system may.

    It does so to a process that was suspended and is told to end as it goes on.
    """
    other = min(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
    assert ctypes.CDLL(None).tgkill(pid, other, number) == 0
