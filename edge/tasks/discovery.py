"""How one's own tasks are found: by entry points of installed packages, and by a setting."""

import importlib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from edge.tasks.base import Task
from edge.tasks.errors import InvalidTask

ENTRY_POINTS = "qflare.tasks"
SETTING = "QFLARE_TASKS"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


def declared_tasks() -> Iterator[tuple[str, type[Task]]]:
    """Give where each task outside this package is declared, and its class.

    Raises:
        InvalidTask: a declaration leads nowhere, or to something that is no complete task.
    """
    for entry_point in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: (entry.name, entry.value)):
        where = f"the entry point {entry_point.name} = {entry_point.value}"
        task = _load(where, entry_point.load)
        if task.name != entry_point.name:
            raise InvalidTask(where, f"its name is {task.name!r}; the entry point must have the same name")
        yield where, task
    for reference in filter(None, (part.strip() for part in os.environ.get(SETTING, "").split(","))):
        where = f"{reference!r} in {SETTING}"
        yield where, _load(where, partial(_resolve, reference))


def _resolve(reference: str) -> object:
    if not re.fullmatch(r"[\w.]+:[\w.]+", reference):
        raise ValueError("write package.module:Class, several with commas between")
    return EntryPoint(name="task", value=reference, group=ENTRY_POINTS).load()


def _load(where: str, load: Callable[[], object]) -> type[Task]:
    importlib.invalidate_caches()
    try:
        found = load()
    except Exception as error:  # whatever another's module raises when imported, the reader must hear whose it is
        raise InvalidTask(where, f"{type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InvalidTask(where, f"{found!r} is no subclass of edge.tasks.Task")
    if missing := sorted(found.__abstractmethods__):
        raise InvalidTask(where, f"{found.__qualname__} lacks {', '.join(missing)}")
    if not _NAME.fullmatch(getattr(found, "name", "")):
        raise InvalidTask(where, "its name must be 1 to 50 lower case letters, digits and dashes")
    return found
