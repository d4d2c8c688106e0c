"""The weighted mean of contributions, streamed from their files, and the step along it: what most strategies share."""

from collections.abc import Sequence

import torch

from edge.weights import Weights
from fl.strategies.base import BadContribution, Contribution

# A few deltas are open at once, so that a block of the sum stays in the processor's cache while they are added to it,
# one after another; else the sum is read from memory and written back for each delta, which takes almost twice as
# long. benchmarks/aggregation.py measures it.
_MOST_OPEN = 8
_BLOCK = 512 * 1024
_MAPPED_BYTES = 16 * 1024**2


def weighted_mean(weights: Weights, contributions: Sequence[Contribution]) -> Weights:
    """Average the deltas of `weights`' floating tensors, each contribution counting by its `num_examples`.

    Each number is summed in the order given, in float32 (float64 for float64 tensors), to within 1e-6 of the mean's
    norm. Memory does not grow with the number of contributions: it is the mean and a few tensors of mapped files.
    Integer and boolean tensors are left out: a count has no mean.

    Raises:
        BadContribution: a delta lacks a tensor, or has one of another shape or dtype.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017, Alg. 1.
    """
    # Sorted, as the tensors lie in their files, which are then read from one end to the other.
    mean = {
        name: torch.empty(tensor.shape, dtype=accumulator_dtype(tensor)) for name, tensor in sorted(floating(weights))
    }
    total = sum(contribution.num_examples for contribution in contributions)
    size = _group_size(mean)
    for first in range(0, len(contributions), size):
        # A function of its own, so that a group's deltas are gone before the next are opened.
        _accumulate(mean, weights, contributions[first : first + size], first, total)
    return mean


def add(weights: Weights, step: Weights, rate: float = 1.0) -> Weights:
    """Return `weights` + `rate` · `step`; tensors that `step` does not have keep their value."""
    return {
        name: torch.add(tensor, step[name], alpha=rate).to(tensor.dtype) if name in step else tensor.clone()
        for name, tensor in weights.items()
    }


def floating(weights: Weights) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors that are learned, in the weights' order."""
    return [(name, tensor) for name, tensor in weights.items() if tensor.is_floating_point()]


def accumulator_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return float32, or float64 where the tensor is: half precision is too coarse to sum in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _group_size(mean: Weights) -> int:
    """Return how many deltas to open at once: few enough that their largest tensors together stay small."""
    largest = max((tensor.nbytes for tensor in mean.values()), default=0)
    return max(1, min(_MOST_OPEN, _MAPPED_BYTES // max(largest, 1)))


def _accumulate(mean: Weights, weights: Weights, group: Sequence[Contribution], first: int, total: int) -> None:
    """Add a group of contributions to `mean`, which holds nothing yet when `first`, the group's first index, is 0."""
    deltas = [dict(contribution.open()) for contribution in group]
    shares = [contribution.num_examples / total * contribution.scale for contribution in group]
    for name, accumulator in mean.items():
        # Taken out of the deltas, so that each tensor's pages are given back as soon as it is added.
        tensors = [_take(delta, name, weights[name], first + k) for k, delta in enumerate(deltas)]
        _add_tensors(accumulator.view(-1), tensors, shares, overwrite=first == 0)


def _take(delta: Weights, name: str, like: torch.Tensor, index: int) -> torch.Tensor:
    tensor = delta.pop(name, None)
    # add_ would stretch a smaller delta to fit.
    if tensor is None or tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise BadContribution(index, f"its delta has no {name!r} of the model's shape and dtype")
    return tensor


def _add_tensors(
    accumulator: torch.Tensor, tensors: Sequence[torch.Tensor], shares: Sequence[float], *, overwrite: bool
) -> None:
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, accumulator.numel(), _BLOCK):
        end = start + _BLOCK
        block = accumulator[start:end]
        for k, (delta, share) in enumerate(zip(flat, shares, strict=True)):
            if overwrite and k == 0:  # copied first: a product with half precision would be rounded to it
                block.copy_(delta[start:end]).mul_(share)
            else:
                block.add_(delta[start:end], alpha=share)
