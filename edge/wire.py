"""How weights cross the network: safetensors bytes, never pickle, believed only where the spec already says the same.

The library writes; reading is ours, since it lets pass what a stranger must not send: names that occur twice, metadata
without end, tensors that nobody asked for. A payload is taken only if its header says exactly what the spec says, and
its bytes are exactly the tensors', in any order, without holes.
"""

import json
import mmap
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import safetensors
import torch

from edge.weights import NORM_BLOCK, Spec, TensorSpec, Weights, WeightsError, first_non_finite, norm, norm_of_pieces

MAX_HEADER_BYTES = 1_000_000
MAX_METADATA_BYTES = 4_096
HEADROOM_BYTES = 64 * 1024
"""What a payload may be larger than its tensors and the entries that name them."""

_LENGTH_BYTES = 8  # the header's length, little-endian, stands before the header
_PIECE_ELEMENTS = 8 * NORM_BLOCK
_SMALL_BYTES = 1024**2  # what is sooner read whole than in pieces
_ENTRY_BYTES = 128  # a tensor's dtype and offsets in the header; a name may take 6 bytes a character, a size 20
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}

Buffer = bytearray | mmap.mmap | memoryview


class WireError(WeightsError):
    """A payload is not what it must be. `code` is stable, to be stored and compared; the text is for people."""

    code: ClassVar[str]


class Truncated(WireError):
    """The payload ends before its header says so."""

    code = "truncated"


class TooLarge(WireError):
    """The payload is larger than weights of this spec can be."""

    code = "too_large"


class BadHeader(WireError):
    """The header is not that of a safetensors payload."""

    code = "bad_header"


class DuplicateName(BadHeader):
    """The header says something twice, so that two readers could understand two things."""

    code = "duplicate_name"


class MetadataTooLarge(BadHeader):
    """The metadata is longer than anybody needs."""

    code = "metadata_too_large"


class BadLayout(WireError):
    """The tensors' bytes overlap, leave holes, lie askew or are followed by others."""

    code = "bad_layout"


class WrongNames(WireError):
    """Tensors are missing, or there are others than the model's."""

    code = "wrong_names"


class WrongDtype(WireError):
    """A tensor's dtype is not the model's."""

    code = "wrong_dtype"


class WrongShape(WireError):
    """A tensor's shape is not the model's."""

    code = "wrong_shape"


class NotFinite(WireError):
    """A tensor holds NaN or an infinity."""

    code = "not_finite"


def encode(weights: Weights) -> bytes:
    """Write `weights` as safetensors; tensors that share memory or lie scattered are written out each for itself."""
    # Held here while the library reads at their addresses: its own way from torch to there takes ten times as long.
    tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    return bytes(safetensors.serialize({name: _by_address(tensor) for name, tensor in tensors.items()}))


def _by_address(tensor: torch.Tensor) -> safetensors.TensorSpec:
    return safetensors.TensorSpec(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=list(tensor.shape),
        data_ptr=tensor.data_ptr(),
        data_len=tensor.nbytes,
    )


def decode(data: bytes, spec: Spec) -> Weights:
    """Read weights that must be exactly those of `spec`; the tensors are the caller's own.

    Raises:
        WireError: a subclass for each way in which `data` is not what it must be. Values are not looked at.
    """
    offsets = _offsets(data, spec)
    return _tensors(bytearray(data), offsets, spec)


class MappedWeights(Weights):
    """Weights in a file, of which that is in memory which was looked at; or read in blocks, past the mapping."""

    def __init__(self, tensors: Weights, file: int, offsets: Mapping[str, int]) -> None:
        super().__init__(tensors)
        self._file = file
        self._offsets = offsets

    def __del__(self) -> None:
        os.close(self._file)

    def read_into(self, room: memoryview, name: str, start: int) -> None:
        """Fill `room` with a tensor's bytes from `start` on; threads may do so at once, each with room of its own.

        Where much is looked at once, a copy into memory that is in use already, and in the processor's cache, costs
        less than the pages that a mapping brings in.

        Raises:
            Truncated: the file has shrunk.
        """
        if os.preadv(self._file, [room], self._offsets[name] + start) != len(room):
            raise Truncated(f"tensor {name!r} ends early")


def read_file(path: Path, spec: Spec) -> MappedWeights:
    """Map weights that must be exactly those of `spec`, to be read only.

    Pages come in when used, and go with the mapping. The file must not shrink while the tensors live; ours are renamed
    into place and never written again.

    Raises:
        WireError: as `decode`.
        OSError: the file cannot be read.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        tensors, offsets = _mapped(file, spec)
    except BaseException:
        os.close(file)
        raise
    return MappedWeights(tensors, file, offsets)


def _mapped(file: int, spec: Spec) -> tuple[Weights, Mapping[str, int]]:
    size = os.fstat(file).st_size
    if size == 0:  # which cannot be mapped
        raise _too_short(size)
    # A private, writable mapping: torch wants writable memory, and a mistaken write never reaches the file.
    buffer = mmap.mmap(file, size, access=mmap.ACCESS_COPY)
    offsets = _offsets(buffer, spec)
    if sys.platform != "win32":
        buffer.madvise(mmap.MADV_SEQUENTIAL)
    return _tensors(buffer, offsets, spec), offsets


def norm_in_file(path: Path, spec: Spec) -> float:
    """Return `norm` of the weights in a file, to the same bits, in memory that does not grow with them.

    Raises:
        WireError, OSError: as `read_file`.
    """
    if path.stat().st_size <= _SMALL_BYTES:
        return norm(decode(path.read_bytes(), spec))
    return norm_of_pieces(_pieces(path, spec))


def _pieces(path: Path, spec: Spec) -> Iterator[torch.Tensor]:
    """Read weights in pieces, each of which is there until the next is asked for."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:  # which cannot be mapped
            raise _too_short(size)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as buffer:
            offsets = _offsets(buffer, spec)
        most = max([1, *(min(_PIECE_ELEMENTS, one.num_elements) * one.torch_dtype.itemsize for one in spec.values())])
        # Not of the heap, which would keep as much for each thread that was ever here.
        room = mmap.mmap(-1, most)
        for name, tensor in spec.items():
            file.seek(offsets[name])
            for start in range(0, tensor.num_elements, _PIECE_ELEMENTS):
                count = min(_PIECE_ELEMENTS, tensor.num_elements - start)
                wanted = count * tensor.torch_dtype.itemsize
                if file.readinto(memoryview(room)[:wanted]) != wanted:
                    raise Truncated(f"tensor {name!r} ends early")
                yield torch.frombuffer(room, dtype=tensor.torch_dtype, count=count)


def check_file(path: Path, spec: Spec) -> None:
    """Check all that can be wrong with a payload, cheapest first: size, header, names, dtypes, shapes, layout, values.

    Raises:
        WireError: a subclass for each way in which the file is not what it must be.
        OSError: the file cannot be read.
    """
    name = first_non_finite(read_file(path, spec))
    if name is not None:
        raise NotFinite(f"tensor {name!r} holds NaN or an infinity")


def max_size(spec: Spec) -> int:
    """Return the bytes that a payload of `spec` may have at most: its tensors, a header that names them, and 64 KiB."""
    header = sum(_ENTRY_BYTES + 6 * len(name) + 20 * len(tensor.shape) for name, tensor in spec.items())
    return _payload_bytes(spec) + header + HEADROOM_BYTES


def _payload_bytes(spec: Spec) -> int:
    return sum(tensor.num_bytes for tensor in spec.values())


def _too_short(size: int) -> Truncated:
    return Truncated(f"the payload has {size} bytes; the header's length alone takes {_LENGTH_BYTES}")


def _offsets(buffer: mmap.mmap | bytes, spec: Spec) -> Mapping[str, int]:
    """Return where each tensor of `spec` begins in `buffer`, having believed nothing."""
    if len(buffer) < _LENGTH_BYTES:
        raise _too_short(len(buffer))
    length = int.from_bytes(buffer[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise BadHeader(f"the header says it has {length} bytes; {MAX_HEADER_BYTES} are allowed")
    data_start = _LENGTH_BYTES + length
    if data_start > len(buffer):
        raise Truncated(f"the header says it has {length} bytes; {len(buffer) - _LENGTH_BYTES} follow")
    return _offsets_in(bytes(buffer[_LENGTH_BYTES:data_start]), len(buffer), tuple(spec.items()))


# A cohort's updates have one and the same header, byte by byte: it is read once. What is refused is not kept.
@lru_cache(maxsize=8)
def _offsets_in(header_bytes: bytes, size: int, spec_items: tuple[tuple[str, TensorSpec], ...]) -> Mapping[str, int]:
    spec = dict(spec_items)
    limit = max_size(spec)
    if size > limit:
        raise TooLarge(f"the payload has {size} bytes; these weights have {limit} at most")
    header = _parse(header_bytes)
    data_start = _LENGTH_BYTES + len(header_bytes)
    _check_metadata(header.pop(_METADATA, {}))
    _check_names(header.keys(), spec)
    spans = {name: _span(name, header[name], spec[name]) for name in spec}
    _check_layout(spans, spec, data_start=data_start, data_bytes=size - data_start)
    return MappingProxyType({name: data_start + start for name, (start, _) in spans.items()})


def _parse(header_bytes: bytes) -> dict[str, object]:
    try:
        header = json.loads(header_bytes.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of 5,000 digits
        raise BadHeader(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise BadHeader("the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise DuplicateName(f"the header says twice: {_some({name for name in counts if counts[name] > 1})}")
    return values


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeader("the metadata is not an object of texts")
    size = len(json.dumps(metadata))
    if size > MAX_METADATA_BYTES:
        raise MetadataTooLarge(f"the metadata has {size} bytes; {MAX_METADATA_BYTES} are allowed")


def _check_names(names: Iterable[str], spec: Spec) -> None:
    found = set(names)
    missing, extra = spec.keys() - found, found - spec.keys()
    if missing or extra:
        facts = [f"without {_some(missing)}"] * bool(missing) + [f"with unknown {_some(extra)}"] * bool(extra)
        raise WrongNames(f"the payload has {len(found)} tensors, the model {len(spec)}: {' and '.join(facts)}")


def _span(name: str, entry: object, tensor: TensorSpec) -> tuple[int, int]:
    """Return a tensor's first byte and the byte after its last, counted from where the data begins."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise BadHeader(f"tensor {name!r} is not described by dtype, shape and data_offsets alone")
    if entry["dtype"] != tensor.dtype:
        raise WrongDtype(f"tensor {name!r} is {_short(entry['dtype'])}, the model's {tensor.dtype}")
    if not _is_integers(entry["shape"]) or tuple(entry["shape"]) != tensor.shape:
        raise WrongShape(f"tensor {name!r} has the shape {_short(entry['shape'])}, the model's {list(tensor.shape)}")
    if not _is_integers(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
        raise BadHeader(f"tensor {name!r} has the data_offsets {_short(entry['data_offsets'])}, not two numbers")
    start, end = entry["data_offsets"]
    if start < 0 or end - start != tensor.num_bytes:
        raise BadLayout(f"tensor {name!r} spans bytes {_short(start)} to {_short(end)}; it has {tensor.num_bytes}")
    return start, end


def _check_layout(spans: dict[str, tuple[int, int]], spec: Spec, *, data_start: int, data_bytes: int) -> None:
    payload = _payload_bytes(spec)
    if data_bytes < payload:
        raise Truncated(f"the tensors have {payload} bytes; {data_bytes} follow the header")
    if data_bytes > payload:
        raise BadLayout(f"the tensors have {payload} bytes; {data_bytes} follow the header")
    # The sizes are right and nothing is left over: if each begins where another ends, none overlap and no hole is left.
    ordered = [(0, 0), *sorted(spans.values())]
    if any(before[1] != after[0] for before, after in pairwise(ordered)):
        raise BadLayout("the tensors' bytes overlap or leave holes")
    for name, (start, _) in spans.items():
        if (data_start + start) % spec[name].torch_dtype.itemsize:
            raise BadLayout(f"tensor {name!r} begins at byte {data_start + start}, askew for {spec[name].dtype}")


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)  # a bool is no size


def _tensors(buffer: Buffer, offsets: Mapping[str, int], spec: Spec) -> Weights:
    return {name: _tensor(buffer, offsets[name], tensor) for name, tensor in spec.items()}


def _tensor(buffer: Buffer, offset: int, tensor: TensorSpec) -> torch.Tensor:
    if tensor.num_elements == 0:  # torch.frombuffer knows no empty tensor
        return torch.empty(tensor.shape, dtype=tensor.torch_dtype)
    flat = torch.frombuffer(buffer, dtype=tensor.torch_dtype, count=tensor.num_elements, offset=offset)
    return flat if len(tensor.shape) == 1 else flat.reshape(tensor.shape)


def _some(names: set[str]) -> str:
    """List a few names, shortened: a stranger chose them."""
    listed = ", ".join(_short(name) for name in sorted(names)[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
