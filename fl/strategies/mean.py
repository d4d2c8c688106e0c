"""The weighted mean of contributions, streamed from their files, and the step along it: what most strategies share."""

from collections.abc import Sequence

import torch

from edge.weights import Weights, spec_of
from fl.strategies import sums
from fl.strategies.base import BadContribution, Contribution

_MOST_OPEN = 32
_MOST_BYTES = 2 * 1024**3
"""Several deltas are open at once, so that a block of the sum stays in the processor's cache while they are added to
it, one after another. Not all of them: whoever opens one may say that it is time to stop."""


def weighted_mean(weights: Weights, contributions: Sequence[Contribution]) -> Weights:
    """Average the deltas of `weights`' floating tensors, each contribution counting by its `num_examples`.

    Each number is summed in the order given, in float32 (float64 for float64 tensors), to within 1e-6 of the mean's
    norm, and is the same to the last bit whatever the number of threads. Memory does not grow with the number of
    contributions: it is the mean, which is the caller's own, and a block for each thread. Integer and boolean tensors
    are left out: a count has no mean.

    Raises:
        BadContribution: a delta lacks a tensor, or has one of another shape or dtype.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017, Alg. 1.
    """
    # Sorted, as the tensors lie in their files, which are then read from one end to the other.
    mean = sums.zeros(weights, {name: accumulator_dtype(tensor) for name, tensor in sorted(floating(weights))})
    total = sum(contribution.num_examples for contribution in contributions)
    size = _group_size(weights)
    with sums.threads_for(mean) as everybody:
        for first in range(0, len(contributions), size):
            group = contributions[first : first + size]
            scales = [contribution.num_examples / total * contribution.scale for contribution in group]
            # Not kept in a name, so that they are gone before the next are opened.
            sums.add_scaled(mean, [_open(one, weights, first + k) for k, one in enumerate(group)], scales, everybody)
    return mean


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
    """Return how many deltas to open at once."""
    size = sum(tensor.num_bytes for tensor in spec_of(weights).values())
    return max(1, min(_MOST_OPEN, _MOST_BYTES // max(size, 1)))


def _open(contribution: Contribution, weights: Weights, index: int) -> Weights:
    delta = contribution.open()
    for name, like in floating(weights):
        tensor = delta.get(name)
        # add_ would stretch a smaller delta to fit.
        if tensor is None or tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise BadContribution(index, f"its delta has no {name!r} of the model's shape and dtype")
    return delta
