"""Contributions made by hand, kept in memory or in files as a device would send them."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from edge.weights import Weights, spec_of
from edge.wire import encode, read_file
from fl.strategies import Contribution


def contribution(num_examples: int, **tensors: list[float]) -> Contribution:
    """Make a contribution of float32 tensors: `contribution(3, w=[1, 2])`."""
    delta = {name: torch.tensor(values, dtype=torch.float32) for name, values in tensors.items()}
    return Contribution(num_examples, lambda: delta)


def in_files(folder: Path, deltas: list[Weights], num_examples: list[int]) -> list[Contribution]:
    """Write deltas as the server stores them, and open them as it does."""
    made = []
    for index, (delta, count) in enumerate(zip(deltas, num_examples, strict=True)):
        path = folder / f"update-{index}"
        path.write_bytes(encode(delta))
        made.append(Contribution(count, partial(read_file, path, spec_of(delta))))
    return made


def reference_mean(deltas: list[np.ndarray], num_examples: list[int]) -> np.ndarray:
    """Σ nₖΔₖ / Σ nₖ in float64."""
    total = sum(count * delta.astype(np.float64) for delta, count in zip(deltas, num_examples, strict=True))
    return total / sum(num_examples)
