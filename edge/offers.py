"""What a device has to offer: tasks that it can train, each with its own examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import TaskUnusable
from edge.partition import Partition, PartitionError
from edge.protocol.client import TaskOffer
from edge.tasks import DataSource, Examples, Task, TaskError, find_task, task_spec
from edge.weights import Spec, WeightsError, spec_digest


@dataclass(frozen=True)
class KnownTask:
    """A task, and what its weights look like; one may serve many devices."""

    task: Task
    spec: Spec
    digest: str


@dataclass(frozen=True, eq=False)
class Offer:
    """A task with one device's examples."""

    known: KnownTask
    examples: Examples

    def message(self) -> TaskOffer:
        """Say it as `hello` does."""
        task = self.known.task
        return TaskOffer(
            task=task.name,
            digest=self.known.digest,
            num_examples=len(self.examples),
            supports=sorted(task.supports),
        )


def know_tasks(names: Sequence[str]) -> list[KnownTask]:
    """Find tasks by name, each once, in the order given.

    Raises:
        TaskUnusable: there is no such task, or it cannot be used.
    """
    return [_know(name) for name in dict.fromkeys(names)]


def load_offer(known: KnownTask, folder: Path | None, partition: Partition | None) -> Offer:
    """Load a device's own examples of a task.

    Raises:
        TaskUnusable: there are none, or they cannot be used or shared out.
    """
    name = known.task.name
    what = f"The data of the task {name!r} cannot be used"
    try:
        examples = known.task.training_examples(DataSource(folder=folder, partition=partition))
    except (TaskError, PartitionError, OSError) as error:
        raise TaskUnusable(what, str(error), "Name a folder with --data, or other tasks with --task.") from error
    if not len(examples):
        raise TaskUnusable(what, "there are no examples", "Name another folder with --data.")
    return Offer(known, examples)


def _know(name: str) -> KnownTask:
    try:
        task = find_task(name)
        spec = task_spec(task)
    except (TaskError, WeightsError) as error:
        raise TaskUnusable(f"The task {name!r} cannot be used", str(error), "Choose another with --task.") from error
    return KnownTask(task, spec, spec_digest(spec))
