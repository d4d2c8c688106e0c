"""Handwritten digits, real ones, small enough to come with the package: the demo's task."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edge.partition import indices_for, split_off_test
from edge.tasks.base import DataSource, Examples, TrainingSettings
from edge.tasks.classification import ClassificationTask
from edge.tasks.errors import DataUnreadable
from edge.tasks.npz import Array, read_npz

if TYPE_CHECKING:
    from torch import nn

DATA_FILE = "digits.npz"
CLASSES = 10
PIXELS = 64
BRIGHTEST = 16

_BUILT_IN = Path(__file__).parent / "data" / DATA_FILE
_TEST_SHARE = 0.2
_TEST_SEED = 0


class Digits(ClassificationTask):
    """8×8 images of digits, 1,797 in all: 1,438 for devices, 359 for the server's test split.

    Inputs are (n, 64) float32 in [0, 1], targets (n,) int64 in 0 to 9. A device's own folder holds `digits.npz` with
    `x`, (n, 64) or (n, 8, 8) numbers from 0 to 16, and `y`, (n,) whole numbers from 0 to 9.
    """

    name: ClassVar[str] = "digits"
    description: ClassVar[str] = "Handwritten digits, 8×8 pixels, by a small multilayer perceptron."
    defaults: ClassVar[TrainingSettings] = TrainingSettings(
        local_epochs=5, batch_size=32, learning_rate=0.05, momentum=0.9
    )

    def build_model(self) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Linear(PIXELS, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def training_examples(self, source: DataSource) -> Examples:
        x, y = _built_in()[0] if source.folder is None else _read(source.folder / DATA_FILE)
        if source.partition is not None:
            mine = indices_for(y, source.partition)
            x, y = x[mine], y[mine]
        return _examples(x, y)

    def test_examples(self) -> Examples:
        return _examples(*_built_in()[1])


class DigitsCnn(Digits):
    """The same digits by a convolutional network of 14,074 parameters."""

    name: ClassVar[str] = "digits-cnn"
    description: ClassVar[str] = "Handwritten digits, 8×8 pixels, by a small convolutional network."

    def build_model(self) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, kernel_size=3, padding=1),  # (b, 8, 8, 8)
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, padding=1),  # (b, 16, 8, 8)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (b, 16, 4, 4)
            nn.Flatten(),
            nn.Linear(256, 48),
            nn.ReLU(),
            nn.Linear(48, CLASSES),
        )


Arrays = tuple[Array, Array]


@cache
def _built_in() -> tuple[Arrays, Arrays]:
    """Give the package's digits as those for devices and those for the test split; read once a process."""
    x, y = _read(_BUILT_IN)
    training, test = split_off_test(y, _TEST_SHARE, _TEST_SEED)
    return (x[training], y[training]), (x[test], y[test])


def _read(path: Path) -> Arrays:
    x, y = read_npz(path)
    x = x.reshape(len(x), -1)
    if x.shape[1] != PIXELS or not _within(x, BRIGHTEST):
        raise DataUnreadable(
            path, f"x is (n, 64) or (n, 8, 8) with numbers from 0 to {BRIGHTEST}; here it is {x.shape}"
        )
    if not np.issubdtype(y.dtype, np.integer) or not _within(y, CLASSES - 1):
        raise DataUnreadable(
            path, f"y is (n,) with whole numbers from 0 to {CLASSES - 1}; here it is {y.dtype} {y.shape}"
        )
    return x, y


def _within(values: Array, highest: int) -> bool:
    if not (np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)):
        return False
    numbers = values.astype(np.float64)
    return bool(np.all((numbers >= 0) & (numbers <= highest)))  # not so for NaN


def _examples(x: Array, y: Array) -> Examples:
    import torch

    return Examples(torch.from_numpy(x.astype(np.float32) / BRIGHTEST), torch.from_numpy(y.astype(np.int64)))
