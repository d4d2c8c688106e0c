"""What weights are: named CPU tensors, the spec that describes them, and the digests that name both."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

Weights = dict[str, torch.Tensor]
"""Name → CPU tensor. A delta has the same names, shapes and dtypes as the weights it belongs to."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The dtypes that a model may have, by the names that safetensors gives them."""

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Below torch's grain size, so that one thread sums a block: a norm is the same bits whatever the number of threads.
NORM_BLOCK = 32_768


class WeightsError(Exception):
    """Weights are not what they must be; the wire's errors are below this one."""


class UnsupportedTensor(WeightsError):
    """A tensor is of a kind that cannot be sent."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.name = name
        self.dtype = dtype
        super().__init__(f"tensor {name!r} is {dtype}, which cannot be sent; use one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor is, without its values.

    Attributes:
        dtype: name as in safetensors, a key of `DTYPES`.
        shape: sizes of the dimensions; empty for a scalar.
    """

    dtype: str
    shape: tuple[int, ...]

    # Kept once computed: a server asks for the same spec with each file that it opens.
    @cached_property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @cached_property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def num_bytes(self) -> int:
        return self.num_elements * self.torch_dtype.itemsize


Spec = dict[str, TensorSpec]
"""Name → what the tensor is: all that two sides must agree on before they exchange weights."""


def spec_of(weights: Weights) -> Spec:
    """Describe `weights`.

    Raises:
        UnsupportedTensor: a dtype outside `DTYPES`.
    """
    return {name: _tensor_spec(name, tensor) for name, tensor in weights.items()}


def spec_digest(spec: Spec) -> str:
    """Return the SHA-256 of names, dtypes and shapes, sorted by name, in hexadecimal: the digest of a task."""
    rows = [_head(name, spec[name]) for name in sorted(spec)]
    return hashlib.sha256(b"\n".join(rows)).hexdigest()


def weights_digest(weights: Weights) -> str:
    """Return the SHA-256 of (name, dtype, shape, bytes), sorted by name, in hexadecimal.

    It names what the weights are, not the file they lie in: a file's order of tensors and its metadata do not count.

    Raises:
        UnsupportedTensor: a dtype outside `DTYPES`.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        # The head says how many bytes follow, so that no two sets of tensors run together to the same text.
        digest.update(_head(name, _tensor_spec(name, tensor)) + b"\n")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_finite(weights: Weights) -> bool:
    """Tell whether no floating tensor holds NaN or an infinity."""
    return first_non_finite(weights) is None


def first_non_finite(weights: Weights) -> str | None:
    """Return the name of the first floating tensor that holds NaN or an infinity, or None."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        # A finite sum has finite terms, and is made several times as fast as a look at each. One that is not may have
        # overflowed. No pass makes a temporary; both ends are NaN when any value is.
        values = tensor.detach()
        if not math.isfinite(values.sum().item()) and not all(math.isfinite(end.item()) for end in values.aminmax()):
            return name
    return None


def norm(weights: Weights) -> float:
    """Return the L2 norm over all floating tensors together, summed in float64.

    It is NaN or infinite when a value is; the same bits come out whatever the number of threads.
    """
    return norm_of_pieces(weights.values())


def norm_of_pieces(tensors: Iterable[torch.Tensor]) -> float:
    """Return the norm of tensors that come one after another, as `norm` does; none is kept.

    A tensor may come in pieces, in its order: where each but the last has a multiple of NORM_BLOCK elements, the bits
    are those of the whole.
    """
    return math.sqrt(sum(_squares(tensor.detach() for tensor in tensors if tensor.is_floating_point())))


def _squares(tensors: Iterable[torch.Tensor]) -> Iterable[float]:
    for tensor in tensors:
        flat = tensor.reshape(-1)
        for start in range(0, flat.numel(), NORM_BLOCK):
            yield flat[start : start + NORM_BLOCK].double().square_().sum().item()


def _tensor_spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    dtype = _DTYPE_NAMES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedTensor(name, tensor.dtype)
    return TensorSpec(dtype=dtype, shape=tuple(tensor.shape))


def _head(name: str, spec: TensorSpec) -> bytes:
    return json.dumps([name, spec.dtype, list(spec.shape)], separators=(",", ":")).encode()
