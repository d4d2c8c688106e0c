"""What can be wrong with a task or its data, each with what it is, why, and what to do.

TaskError
├── UnknownTask       no task has this name
├── InvalidTask       a task is declared that cannot be used
└── DataError
    ├── DataMissing     the files are not there
    └── DataUnreadable  the files are there and are not what they must be
"""

from collections.abc import Iterable
from pathlib import Path


class TaskError(Exception):
    """A task or its data cannot be used."""


class UnknownTask(TaskError):
    """No task has this name here.

    Attributes:
        name: what was asked for.
        known: the names there are, sorted.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = sorted(known)
        super().__init__(
            f"there is no task {name!r} here; there are: {', '.join(self.known)}. "
            "A task of your own is named in QFLARE_TASKS or by an entry point of the group qflare.tasks"
        )


class InvalidTask(TaskError):
    """A task is declared that cannot be used.

    Attributes:
        where: the entry point or setting that declares it.
        reason: what is wrong with it.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"the task declared by {where} cannot be used: {reason}")


class DataError(TaskError):
    """A task's data cannot be used."""


class DataMissing(DataError):
    """The files of a task's data are not there.

    Attributes:
        path: the file or folder that was looked for.
    """

    def __init__(self, path: Path | str, remedy: str) -> None:
        self.path = Path(path)
        super().__init__(f"{path} is not there; {remedy}")


class DataUnreadable(DataError):
    """The files of a task's data are not what they must be.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path} cannot be used: {reason}")
