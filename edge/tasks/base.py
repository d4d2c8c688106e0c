"""What a task is: a model, a loss, metrics and data, known by one name on the server and on its devices.

Both sides have the task's code; it is never sent. This module does without torch until a task is used, so that listing
the tasks costs nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from edge.partition import Partition

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PROXIMAL = "proximal"
"""The training loop can add FedProx's μ(w - x) to the gradients."""


class InvalidSettings(ValueError):
    """A training setting is out of its range."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a device trains in one round.

    Attributes:
        local_epochs: passes over the device's own examples, at least 1.
        batch_size: examples a step, at least 1; the last batch of an epoch may be smaller.
        learning_rate: of plain SGD, above 0.
        momentum: in [0, 1); 0 is plain SGD. The velocity starts at 0 in every round.
        proximal_mu: FedProx's μ, at least 0; 0 is FedAvg's local training.
        seed: of the order of the examples, from 0 to 2**64 - 1.

    Raises:
        InvalidSettings: a value is out of its range.
    """

    local_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.0
    proximal_mu: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.local_epochs >= 1, "local_epochs is a whole number from 1", self.local_epochs)
        _require(self.batch_size >= 1, "batch_size is a whole number from 1", self.batch_size)
        _require(0 < self.learning_rate < math.inf, "learning_rate is a number above 0", self.learning_rate)
        _require(0 <= self.momentum < 1, "momentum is a number from 0 to below 1", self.momentum)
        _require(0 <= self.proximal_mu < math.inf, "proximal_mu is a number from 0", self.proximal_mu)
        _require(0 <= self.seed < 2**64, "seed is a whole number from 0 to 2**64 - 1", self.seed)

    @property
    def needs(self) -> frozenset[str]:
        """What a training loop must support to follow these settings."""
        return frozenset({PROXIMAL}) if self.proximal_mu > 0 else frozenset()


def _require(holds: bool, rule: str, value: float) -> None:
    if not holds:
        raise InvalidSettings(f"{rule}, not {value}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, after a batch.

    Attributes:
        batch: batches done, from 1.
        batches: batches of the whole training.
        local_epoch: the epoch of this batch, from 1.
        local_epochs: epochs of the whole training.
        loss: of this batch, before its step.
    """

    batch: int
    batches: int
    local_epoch: int
    local_epochs: int
    loss: float

    @property
    def fraction(self) -> float:
        """The part done, from 0 to 1."""
        return min(1.0, self.batch / self.batches) if self.batches else 1.0


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class DataSource:
    """Where a device's examples come from.

    Attributes:
        folder: the device's own data; None for the data that the task finds by itself.
        partition: which piece of them is this device's; None for all.
    """

    folder: Path | None = None
    partition: Partition | None = None


class Batch(NamedTuple):
    """The examples of one step: inputs (b, ...) and targets (b, ...)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """Examples in memory: inputs (n, ...) and targets (n, ...), of any dtype that the task's loss understands."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def chunks(self, size: int) -> Iterator[Batch]:
        """Go through the examples in their order, `size` at a time, without copying."""
        for start in range(0, len(self), size):
            yield Batch(self.inputs[start : start + size], self.targets[start : start + size])


class Task(ABC):
    """A model, a loss, metrics and data under one name; instances hold no state that training changes.

    A task that learns to tell two clouds of points apart:

        class Clouds(ClassificationTask):
            name = "clouds"
            description = "Two clouds of points in the plane."

            def build_model(self):
                return nn.Linear(2, 2)

            def training_examples(self, source):
                points = np.load(source.folder / "clouds.npz", allow_pickle=False)
                return Examples(torch.from_numpy(points["x"]), torch.from_numpy(points["y"]))

    Attributes:
        name: lower case letters, digits and dashes; the same on the server and on every device.
        description: one sentence for people.
        supports: what the training loop can do beyond plain local training.
        defaults: settings a run starts from unless it says otherwise.
    """

    name: ClassVar[str]
    description: ClassVar[str] = ""
    supports: ClassVar[frozenset[str]] = frozenset({PROXIMAL})
    defaults: ClassVar[TrainingSettings] = TrainingSettings(local_epochs=1, batch_size=32, learning_rate=0.05)

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Make the model with fresh weights, drawn from torch's global generator, which the caller seeds.

        The names, shapes and dtypes of its state dict are what travels, so they must be the same each time.
        """

    @abstractmethod
    def training_examples(self, source: DataSource) -> Examples:
        """Load a device's own examples, which never include the server's test split.

        Raises:
            DataMissing: there are none at the source; says what to do.
            DataUnreadable: what is there is something else.
            PartitionImpossible: they cannot be shared out as the source asks.
        """

    def test_examples(self) -> Examples | None:
        """Load the server's test split, the same each time; None where the server has no data of this task."""
        return None

    def batches(self, examples: Examples, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Go through the examples once, in an order drawn from the generator and from nothing else."""
        import torch

        order = torch.randperm(len(examples), generator=generator)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            yield Batch(examples.inputs[indices], examples.targets[indices])

    def num_batches(self, examples: Examples, batch_size: int) -> int:
        """Tell how many batches `batches` gives; progress is counted in them."""
        return math.ceil(len(examples) / batch_size)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Give the mean loss of a batch: a scalar that gradients can be taken of."""

    @abstractmethod
    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Measure a model: `loss` always, `accuracy` as a fraction where the task has one, and what else it likes.

        The caller has put the model into evaluation mode and switched gradients off.
        """


class OwnLoopTask(Task):
    """A task that trains by a loop of its own, and supports only what it declares: at first, nothing."""

    supports: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def train(self, model: nn.Module, examples: Examples, settings: TrainingSettings, report: Report) -> None:
        """Train the model in place, by the settings, drawing only from generators seeded with `settings.seed`.

        Call `report` after every batch. It raises when the training is cancelled or diverges: let that pass.
        """


def missing_support(task: Task, needs: Iterable[str]) -> frozenset[str]:
    """Tell what of `needs` the task's training loop cannot do; empty if it can do all."""
    return frozenset(needs) - task.supports
