"""Sums of many deltas that lie in files: by several threads, of which each reads a block and adds it, in cache."""

import mmap
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import torch

from edge.weights import Weights
from edge.wire import MappedWeights

_BLOCK_BYTES = 1024**2
"""A block of the sum and one of a delta find room in the cache of a core."""
_LARGE_PAGE = 2 * 1024**2
_ALIGNMENT = 64

Everybody = Callable[[Callable[[], None]], None]
"""Calls a function in each of some threads, and returns when it has returned in all."""

_Block = tuple[str, int, int]
"""The tensor's name, its first element and that after its last, in flat order."""


def zeros(like: Mapping[str, torch.Tensor], dtypes: Mapping[str, torch.dtype]) -> Weights:
    """Return zeros of the shapes of `like`, and of these dtypes, in the order of `dtypes`."""
    size = sum(_aligned(like[name].numel() * dtype.itemsize) for name, dtype in dtypes.items())
    if sys.platform != "linux" or size < _LARGE_PAGE:
        return {name: torch.zeros(like[name].shape, dtype=dtype) for name, dtype in dtypes.items()}
    # Fresh memory comes in page by page: in large ones that takes a quarter of the time.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    made, start = {}, 0
    for name, dtype in dtypes.items():
        shape, count = like[name].shape, like[name].numel()
        if count == 0:  # which torch.frombuffer does not know
            made[name] = torch.zeros(shape, dtype=dtype)
            continue
        made[name] = torch.frombuffer(memory, dtype=dtype, count=count, offset=start).view(shape)
        start += _aligned(count * dtype.itemsize)
    return made


@contextmanager
def threads_for(sums: Weights) -> Iterator[Everybody]:
    """Give what calls a function in as many threads as torch may use, each of which does torch's work alone."""
    count = torch.get_num_threads()
    if count == 1 or sum(tensor.numel() * tensor.element_size() for tensor in sums.values()) <= _BLOCK_BYTES:
        yield lambda work: work()  # threads would only wait for each other
        return
    try:
        with ThreadPoolExecutor(count, "sums", initializer=torch.set_num_threads, initargs=(1,)) as threads:
            yield partial(_call_in_all, threads, count)
    finally:
        torch.set_num_threads(count)  # what those threads said would hold for all that come to be later, too


def add_scaled(sums: Weights, deltas: Sequence[Weights], scales: Sequence[float], everybody: Everybody) -> None:
    """Add each delta, times its scale, to `sums`: to each number in the order given.

    Args:
        deltas: with the names and shapes of `sums`, and more names or not; of one dtype for each name.
        everybody: of `threads_for`.
    """
    blocks = iter(list(_blocks(sums)))  # not a generator, which threads must not share
    everybody(partial(_add_blocks, blocks, sums, deltas, scales))


def _call_in_all(threads: ThreadPoolExecutor, count: int, work: Callable[[], None]) -> None:
    for one in [threads.submit(work) for _ in range(count)]:
        one.result()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _blocks(sums: Weights) -> Iterator[_Block]:
    for name, tensor in sums.items():
        size = _BLOCK_BYTES // tensor.element_size()
        for start in range(0, tensor.numel(), size):
            yield name, start, min(start + size, tensor.numel())


def _add_blocks(blocks: Iterator[_Block], sums: Weights, deltas: Sequence[Weights], scales: Sequence[float]) -> None:
    room = torch.empty(_BLOCK_BYTES, dtype=torch.uint8)
    for name, start, end in blocks:
        sum_ = sums[name].view(-1)[start:end]
        for block, scale in zip(_blocks_of(deltas, name, start, end, room), scales, strict=True):
            sum_.add_(block, alpha=scale)


def _blocks_of(
    deltas: Sequence[Weights], name: str, start: int, end: int, room: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Give a block of each delta; what lies in files is read into `room`, and is there until the next."""
    dtype = deltas[0][name].dtype
    used = room[: (end - start) * dtype.itemsize]
    block, bytes_of_block = used.view(dtype), used.numpy().data
    for delta in deltas:
        if isinstance(delta, MappedWeights):
            delta.read_into(bytes_of_block, name, start * dtype.itemsize)
            yield block
        else:
            yield delta[name].reshape(-1)[start:end]
