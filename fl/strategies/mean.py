"""The weighted mean of contributions, streamed from their files, and the step along it: what most strategies share."""

from collections.abc import Iterator, Sequence

import torch

from edge.weights import Weights, spec_of
from edge.wire import MappedWeights, memory_while_taken
from fl.strategies.base import BadContribution, Contribution

# Several deltas are open at once, so that a block of the sum stays in the processor's cache while they are added to it,
# one after another; else the sum is read from memory and written back for each delta, which takes almost twice as
# long. More than eight gain nothing that benchmarks/aggregation.py could measure.
_MOST_OPEN = 8
_BLOCK = 512 * 1024
_MAPPED_BYTES = 64 * 1024**2


def weighted_mean(weights: Weights, contributions: Sequence[Contribution]) -> Weights:
    """Return `means` as a whole, where a strategy cannot go tensor by tensor."""
    return dict(means(weights, contributions))


def means(weights: Weights, contributions: Sequence[Contribution]) -> Iterator[tuple[str, torch.Tensor]]:
    """Average the deltas of `weights`' floating tensors, each contribution counting by its `num_examples`.

    Names come with their means, in memory that is the caller's, while the processor's cache still holds them: what is
    done to each at once is done sooner than after all.

    Each number is summed in the order given, in float32 (float64 for float64 tensors), to within 1e-6 of the mean's
    norm. Memory does not grow with the number of contributions: it is the mean and a few windows of mapped files.
    Integer and boolean tensors are left out: a count has no mean.

    Raises:
        BadContribution: a delta lacks a tensor, or has one of another shape or dtype.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017, Alg. 1.
    """
    # Sorted, as the tensors lie in their files, which are then read from one end to the other.
    sums = {
        name: torch.empty(tensor.shape, dtype=accumulator_dtype(tensor)) for name, tensor in sorted(floating(weights))
    }
    total = sum(contribution.num_examples for contribution in contributions)
    size = _group_size(weights)
    firsts = range(0, len(contributions), size)
    for first in firsts:
        # A function of its own, so that a group's deltas are gone before the next are opened.
        for name in _accumulate(sums, weights, contributions[first : first + size], first, total):
            if first == firsts[-1]:
                yield name, sums.pop(name)


def add(weights: Weights, step: Weights, rate: float = 1.0) -> Weights:
    """Return `weights` + `rate` · `step`; tensors that `step` does not have keep their value."""
    stepped = {
        name: torch.add(weights[name], tensor, alpha=rate).to(weights[name].dtype) for name, tensor in step.items()
    }
    return with_counts(weights, stepped)


def with_counts(weights: Weights, stepped: Weights) -> Weights:
    """Return `stepped` in the order of `weights`, with copies of the tensors that have no mean, and so did not step."""
    return {name: stepped[name] if name in stepped else tensor.clone() for name, tensor in weights.items()}


def floating(weights: Weights) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors that are learned, in the weights' order."""
    return [(name, tensor) for name, tensor in weights.items() if tensor.is_floating_point()]


def accumulator_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return float32, or float64 where the tensor is: half precision is too coarse to sum in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _group_size(weights: Weights) -> int:
    """Return how many deltas to open at once: few enough that what is mapped of them together stays small."""
    return max(1, min(_MOST_OPEN, _MAPPED_BYTES // memory_while_taken(spec_of(weights))))


def _accumulate(
    sums: Weights, weights: Weights, group: Sequence[Contribution], first: int, total: int
) -> Iterator[str]:
    """Add a group of contributions to `sums`, which hold nothing yet when `first`, the group's first index, is 0.

    Each name comes when its tensors are added.
    """
    deltas = [contribution.open() for contribution in group]
    shares = [contribution.num_examples / total * contribution.scale for contribution in group]
    for name in list(sums):
        tensors = [_take(delta, name, weights[name], first + k) for k, delta in enumerate(deltas)]
        _add_tensors(sums[name], tensors, shares, overwrite=first == 0)
        yield name


def _take(delta: Weights, name: str, like: torch.Tensor, index: int) -> torch.Tensor:
    tensor = delta.take(name) if isinstance(delta, MappedWeights) else delta.get(name)
    # add_ would stretch a smaller delta to fit.
    if tensor is None or tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise BadContribution(index, f"its delta has no {name!r} of the model's shape and dtype")
    return tensor


def _add_tensors(
    accumulator: torch.Tensor, tensors: Sequence[torch.Tensor], shares: Sequence[float], *, overwrite: bool
) -> None:
    if accumulator.numel() <= _BLOCK:  # as most are: a slice takes a microsecond, as the call that adds it does
        _add_blocks(accumulator, tensors, shares, overwrite=overwrite)
        return
    accumulator, flat = accumulator.view(-1), [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, accumulator.numel(), _BLOCK):
        end = start + _BLOCK
        _add_blocks(accumulator[start:end], [tensor[start:end] for tensor in flat], shares, overwrite=overwrite)


def _add_blocks(
    accumulator: torch.Tensor, blocks: Sequence[torch.Tensor], shares: Sequence[float], *, overwrite: bool
) -> None:
    for k, (block, share) in enumerate(zip(blocks, shares, strict=True)):
        if overwrite and k == 0:  # copied first: a product with half precision would be rounded to it
            accumulator.copy_(block).mul_(share)
        else:
            accumulator.add_(block, alpha=share)
