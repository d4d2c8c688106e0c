"""The weighted mean of contributions, one file after another, and the step along it: what most strategies share."""

from collections.abc import Sequence

import torch

from edge.weights import Weights
from fl.strategies.base import BadContribution, Contribution


def weighted_mean(weights: Weights, contributions: Sequence[Contribution]) -> Weights:
    """Average the deltas of `weights`' floating tensors, each contribution counting by its `num_examples`.

    It sums in the order given, in float32 (float64 for float64 tensors), and holds one delta at a time: memory is one
    accumulator and one mapped file, whatever the number of contributions. For the norm of the error, 1e-6 of the
    mean's is what it keeps to. Integer and boolean tensors are left out: a count has no mean.

    Raises:
        BadContribution: a delta lacks a tensor, or has one of another shape or dtype.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017, Alg. 1.
    """
    mean = {name: torch.empty(tensor.shape, dtype=accumulator_dtype(tensor)) for name, tensor in floating(weights)}
    total = sum(contribution.num_examples for contribution in contributions)
    for index, contribution in enumerate(contributions):
        # A function of its own, so that the delta is gone before the next is opened.
        _accumulate(mean, weights, index, contribution, share=contribution.num_examples / total)
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


def _accumulate(mean: Weights, weights: Weights, index: int, contribution: Contribution, share: float) -> None:
    deltas = contribution.open()
    for name, accumulator in mean.items():
        delta = deltas.get(name)
        # add_ would stretch a smaller delta to fit.
        if delta is None or delta.shape != accumulator.shape or delta.dtype != weights[name].dtype:
            raise BadContribution(index, f"its delta has no {name!r} of the model's shape and dtype")
        if index == 0:  # the accumulator's memory is still untouched: write it once, instead of zeros and then this
            torch.mul(delta, share, out=accumulator)
        else:
            accumulator.add_(delta, alpha=share)
