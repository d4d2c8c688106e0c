"""The smallest thing that learns: a straight line through made-up points, in milliseconds; the tests' friend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from edge.partition import Partition, indices_for
from edge.tasks.base import Batch, DataSource, Examples, Task, TrainingSettings
from edge.tasks.errors import DataUnreadable
from edge.tasks.npz import read_npz

if TYPE_CHECKING:
    from torch import Tensor, nn

DATA_FILE = "linear.npz"
SLOPES = (1.0, -2.0, 0.5, 3.0)
OFFSET = 0.75
NOISE = 0.05
"""Standard deviation of what is added to each target."""
TOLERANCE = 0.25
"""A prediction this near to its target counts as right."""

_TRAINING_ROWS = 512
_ROWS_PER_DEVICE = 16
_TEST_ROWS = 128
_TRAINING_SEED = 1
_TEST_SEED = 2
_TARGET_RANGES = 10

Floats = npt.NDArray[np.float32]


class Linear(Task):
    """Find the slopes and the offset of y = x·(1, -2, 0.5, 3) + 0.75 + noise.

    Inputs are (n, 4) float32, standard normal; targets (n,) float32. The data are the same on every machine, and grow
    with the number of pieces, so that any number of devices can share them: 512 examples, or 16 a device if that is
    more. Dirichlet shares out ten ranges of the target, as if they were classes. A device's own folder holds
    `linear.npz` with `x`, (n, 4), and `y`, (n,), finite numbers.
    """

    name: ClassVar[str] = "linear"
    description: ClassVar[str] = "A line through made-up points; learns in milliseconds."
    defaults: ClassVar[TrainingSettings] = TrainingSettings(local_epochs=1, batch_size=16, learning_rate=0.05)

    def build_model(self) -> nn.Module:
        from torch import nn

        return nn.Linear(len(SLOPES), 1)

    def training_examples(self, source: DataSource) -> Examples:
        if source.folder is not None:
            x, y = _read(source.folder / DATA_FILE)
        else:
            count = source.partition.count if source.partition else 1
            x, y = _made_up(max(_TRAINING_ROWS, count * _ROWS_PER_DEVICE), _TRAINING_SEED)
        if source.partition is not None:
            mine = _mine(y, source.partition)
            x, y = x[mine], y[mine]
        return _examples(x, y)

    def test_examples(self) -> Examples:
        return _examples(*_made_up(_TEST_ROWS, _TEST_SEED))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(model(batch.inputs).squeeze(1), batch.targets)

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Measure the mean squared error (`loss`) and the fraction predicted within 0.25 (`accuracy`)."""
        errors = model(examples.inputs).squeeze(1) - examples.targets  # (n,)
        right = (errors.abs() <= TOLERANCE).double().mean()
        return {"loss": errors.square().mean().item(), "accuracy": right.item()}


def _made_up(rows: int, seed: int) -> tuple[Floats, Floats]:
    """Make examples; more rows begin with the same rows."""
    drawn = np.random.RandomState(seed).standard_normal((rows, len(SLOPES) + 1))
    x, noise = drawn[:, :-1], drawn[:, -1] * NOISE
    y = (x * np.array(SLOPES)).sum(axis=1) + OFFSET + noise
    return x.astype(np.float32), y.astype(np.float32)


def _mine(y: Floats, partition: Partition) -> npt.NDArray[np.int64]:
    ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")  # (n,), 0 is the smallest target
    return indices_for(ranks * _TARGET_RANGES // len(y), partition)


def _read(path: Path) -> tuple[Floats, Floats]:
    x, y = read_npz(path)
    numbers = np.issubdtype(x.dtype, np.number) and np.issubdtype(y.dtype, np.number)
    if not numbers or x.shape[1:] != (len(SLOPES),):
        raise DataUnreadable(
            path, f"x is (n, {len(SLOPES)}) numbers and y is (n,) numbers; here x is {x.dtype} {x.shape}"
        )
    floats = x.astype(np.float32), y.astype(np.float32)
    if not all(np.isfinite(values).all() for values in floats):
        raise DataUnreadable(path, "it holds numbers that are not finite")
    return floats


def _examples(x: Floats, y: Floats) -> Examples:
    import torch

    return Examples(torch.from_numpy(x), torch.from_numpy(y))
