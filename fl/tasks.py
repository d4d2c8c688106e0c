"""What the server has of a task, looked up once a process: its model's spec and its test split."""

from functools import cache

from edge.tasks import Examples, Task, TaskError, available_tasks, find_task, task_spec
from edge.weights import Spec, spec_digest
from fl.exceptions import TaskUnavailable


@cache
def task_named(name: str) -> Task:
    """Return the server's own task of this name.

    Raises:
        TaskUnavailable: there is none, or it cannot be loaded.
    """
    try:
        return find_task(name)
    except TaskError as error:
        raise TaskUnavailable(str(error), field="task") from error


@cache
def spec_of_task(name: str) -> Spec:
    """Return the names, shapes and dtypes of a task's weights."""
    return task_spec(task_named(name))


@cache
def digest_of_task(name: str) -> str:
    """Return the digest by which server and device know that they mean the same model."""
    return spec_digest(spec_of_task(name))


@cache
def test_examples_of(name: str) -> Examples | None:
    """Return the server's test split of a task, or None where the server has no data of it."""
    return task_named(name).test_examples()


def task_names() -> list[str]:
    """Return the names of all tasks that this server has."""
    return sorted(available_tasks())
