"""What can be learned here: the tasks that come with the package and those that others declare, by name."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from edge.tasks.base import (
    PROXIMAL,
    Batch,
    DataSource,
    Examples,
    InvalidSettings,
    OwnLoopTask,
    Progress,
    Report,
    Task,
    TrainingSettings,
    missing_support,
)
from edge.tasks.classification import ClassificationTask
from edge.tasks.digits import Digits, DigitsCnn
from edge.tasks.discovery import declared_tasks
from edge.tasks.errors import DataError, DataMissing, DataUnreadable, InvalidTask, TaskError, UnknownTask
from edge.tasks.fashion_mnist import FashionMnist
from edge.tasks.linear import Linear

if TYPE_CHECKING:
    from torch import nn

    from edge.weights import Spec, Weights

__all__ = [
    "PROXIMAL",
    "TASKS",
    "Batch",
    "ClassificationTask",
    "DataError",
    "DataMissing",
    "DataSource",
    "DataUnreadable",
    "Examples",
    "InvalidSettings",
    "InvalidTask",
    "OwnLoopTask",
    "Progress",
    "Report",
    "Task",
    "TaskError",
    "TrainingSettings",
    "UnknownTask",
    "available_tasks",
    "build_model",
    "find_task",
    "initial_weights",
    "missing_support",
    "seed_global_generator",
    "task_digest",
    "task_spec",
]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Digits, DigitsCnn, FashionMnist, Linear)}

# Torch's generator belongs to the whole process: threads that seed it at once would draw from each other's seed.
_global_generator = Lock()


def available_tasks() -> dict[str, type[Task]]:
    """Give every task by name: those of this package, of entry points, and of the setting QFLARE_TASKS.

    Raises:
        InvalidTask: one is declared that cannot be used, or under a name that another has.
    """
    tasks = dict(TASKS)
    for where, task in declared_tasks():
        if tasks.setdefault(task.name, task) is not task:
            raise InvalidTask(where, f"the name {task.name!r} is taken by {tasks[task.name].__qualname__}")
    return tasks


def find_task(name: str) -> Task:
    """Give the task of this name.

    Raises:
        UnknownTask: there is none; lists those there are.
        InvalidTask: it is not among this package's own, and another is declared that cannot be used.
    """
    # The package's own come first: they need no search through the installed packages.
    tasks = TASKS if name in TASKS else available_tasks()
    if name not in tasks:
        raise UnknownTask(name, tasks)
    return tasks[name]()


def build_model(task: Task, seed: int = 0) -> nn.Module:
    """Make the task's model with initial weights drawn from the seed, and leave torch's global generator as it was."""
    import torch

    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return task.build_model()


def seed_global_generator(seed: int) -> None:
    """Seed torch's global generator, which models with dropout draw from, but not while a model is being built."""
    import torch

    with _global_generator:
        torch.default_generator.manual_seed(seed)


def initial_weights(task: Task, seed: int) -> Weights:
    """Draw the weights that a run starts from; the same for the same seed, from 0 to 2**64 - 1."""
    state = build_model(task, seed).state_dict()
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def task_spec(task: Task) -> Spec:
    """Tell the names, shapes and dtypes of the task's weights."""
    from edge.weights import spec_of

    return spec_of(initial_weights(task, seed=0))


def task_digest(task: Task) -> str:
    """Tell the digest by which server and device make sure that they mean the same model: 64 hexadecimal digits."""
    from edge.weights import spec_digest

    return spec_digest(task_spec(task))
