"""Fashion-MNIST: 70,000 pictures of clothes, the task for longer runs; its files come from the distribution."""

from __future__ import annotations

import gzip
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from edge.partition import indices_for
from edge.tasks.base import DataSource, Examples, TrainingSettings
from edge.tasks.classification import ClassificationTask
from edge.tasks.errors import DataMissing, DataUnreadable

if TYPE_CHECKING:
    from torch import Tensor, nn

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FOLDER_SETTING = "QFLARE_FASHION_MNIST"
CLASSES = 10
SIDE = 28

_REMEDY = (
    f"install Debian's package (apt-get install dataset-fashion-mnist), or name in {FOLDER_SETTING} or as the device's "
    "data folder one that holds the idx files: train-images-idx3-ubyte, train-labels-idx1-ubyte, and on the server "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each plain or .gz"
)

Bytes = npt.NDArray[np.uint8]


class FashionMnist(ClassificationTask):
    """28×28 pictures of ten kinds of clothes: 60,000 for devices, 10,000 as the server's test split.

    Inputs are stored as (n, 784) uint8, a quarter of what floats would take, and scaled to [0, 1] batch by batch;
    targets are (n,) int64 in 0 to 9. A device's own folder holds the two `train-` files.
    """

    name: ClassVar[str] = "fashion-mnist"
    description: ClassVar[str] = "Pictures of ten kinds of clothes, 28×28 pixels, by a convolutional network."
    defaults: ClassVar[TrainingSettings] = TrainingSettings(
        local_epochs=1, batch_size=32, learning_rate=0.01, momentum=0.9
    )

    def build_model(self) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.Unflatten(1, (1, SIDE, SIDE)),
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (b, 16, 14, 14)
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (b, 32, 7, 7)
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, CLASSES),
        )

    def prepare(self, inputs: Tensor) -> Tensor:
        return inputs.float().div_(255)

    def training_examples(self, source: DataSource) -> Examples:
        x, y = _read_pair(source.folder or _folder(), "train")
        if source.partition is not None:
            mine = indices_for(y, source.partition)
            x, y = x[mine], y[mine]
        return _examples(x, y)

    def test_examples(self) -> Examples | None:
        """Load the 10,000 pictures that come as a test split; None where the server does not have the files."""
        try:
            return _examples(*_read_pair(_folder(), "t10k"))
        except DataMissing:
            return None


def _folder() -> Path:
    return Path(os.environ.get(FOLDER_SETTING) or DEBIAN_FOLDER)


def _read_pair(folder: Path, split: str) -> tuple[Bytes, Bytes]:
    """Read the images (n, 784) and labels (n,) of a split."""
    images_path, labels_path = (
        _find(folder / f"{split}-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images, labels = _read_cached(images_path), _read_cached(labels_path)
    if images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataUnreadable(images_path, f"it holds an array {images.shape}, not (n, {SIDE}, {SIDE}) with n above 0")
    if labels.shape != images.shape[:1] or labels.max() >= CLASSES:
        raise DataUnreadable(labels_path, f"it does not hold {len(images)} labels from 0 to {CLASSES - 1}")
    return images.reshape(len(images), SIDE * SIDE), labels


def _find(path: Path) -> Path:
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise DataMissing(path, _REMEDY)


def _read_cached(path: Path) -> Bytes:
    status = path.stat()
    return _read_idx(path, status.st_mtime_ns, status.st_size)


# Many devices in one process share the arrays; a changed file is another key.
@lru_cache(maxsize=4)
def _read_idx(path: Path, _mtime_ns: int, _size: int) -> Bytes:
    """Read an idx file of unsigned bytes: 0, 0, 8, number of axes, each axis as four bytes big-endian, the values.

    Raises:
        DataUnreadable: it is something else, or longer or shorter than it says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnreadable(path, f"it cannot be read: {error}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataUnreadable(path, "it is no idx file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = tuple(int(size) for size in np.frombuffer(data[4:start].ljust(start - 4, b"\x00"), dtype=">u4"))
    if len(data) - start != np.prod(shape, dtype=object):
        raise DataUnreadable(path, f"it says it holds an array {shape}, but {len(data) - start} bytes follow")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _examples(x: Bytes, y: Bytes) -> Examples:
    import torch

    # np.array copies: what was read is shared and read-only, and a tensor must not be able to write to it.
    return Examples(torch.from_numpy(np.array(x)), torch.from_numpy(y.astype(np.int64)))
