"""How close aggregation comes to merely reading the updates' files once, and how much memory it takes.

    python benchmarks/aggregation.py                     20 and 100 updates of 10 million float32
    python benchmarks/aggregation.py --devices 20 --folder /data/tmp

Each update is a distinct file (40 MB) in a temporary folder, deleted at the end, and warm in the page cache. It is
written as the server writes what `edge` sends, in pieces of 64 KiB: a file that is written as one comes into larger
pages, and is read up to four times as fast.

Time: one process per number of updates takes turns between the floor (map each file, read every value once, in one sum
a file on the same threads) and FedAvg (open, check the header, sum, add to the weights, check that all is finite). The
ratio that counts is the median of the turns' ratios. Beside it stand their quartiles: where they lie far apart, other
work was on the machine, and the median says little. The load is printed for the same reason.

Memory: a fresh process for each strategy and number of updates; the highest resident size that the kernel counted,
mapped pages and Python itself included.
"""

import argparse
import importlib
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from edge.weights import Spec
    from fl.strategies import Contribution

LAYERS = 20
PIECE_BYTES = 64 * 1024
TARGET_RATIO = 1.3
TARGET_MB = 350


def main() -> None:
    options = _options()
    if options.part:
        PARTS[options.part](options)
        return
    with tempfile.TemporaryDirectory(prefix="aggregation-", dir=options.folder) as folder:
        most = max(options.devices)
        print(f"writing {most} updates of {options.parameters:,} float32 ...", flush=True)
        _run(options, "write", folder, most)
        base_mb = _run(options, "import", folder, 0)["peak_mb"]
        print(f"{options.threads} threads, {options.turns} turns; Python with torch alone takes {base_mb:.0f} MB\n")
        print(" updates  read once s   FedAvg s   ratio    quartiles  FedAvg MB  FedAdam MB  load")
        for devices in options.devices:
            timing = _run(options, "time", folder, devices)
            fedavg = _run(options, "memory", folder, devices, strategy="fedavg")["peak_mb"]
            fedadam = _run(options, "memory", folder, devices, strategy="fedadam")["peak_mb"]
            load = os.getloadavg()[0]
            print(
                f"{devices:>8} {timing['floor_s']:>12.3f} {timing['fedavg_s']:>10.3f} {timing['ratio']:>7.2f} "
                f"{timing['low']:>5.2f} - {timing['high']:.2f} {fedavg:>10.0f} {fedadam:>11.0f} {load:>5.1f}",
                flush=True,
            )
        print(f"\nto reach: ratio ≤ {TARGET_RATIO}, FedAvg ≤ {TARGET_MB} MB whatever the number of updates")


def write(options: argparse.Namespace) -> None:
    """Write the global weights and as many distinct updates as asked for."""
    import torch

    from edge.wire import encode

    generator = torch.Generator().manual_seed(0)
    for name in ["weights", *(f"update-{index}" for index in range(options.count))]:
        layers = torch.empty(options.parameters).normal_(std=0.01, generator=generator).chunk(LAYERS)
        weights = {f"layer{index}.weight": layer for index, layer in enumerate(layers)}
        payload = memoryview(encode(weights))
        with (options.folder / name).open("wb", buffering=0) as file:
            for start in range(0, len(payload), PIECE_BYTES):
                file.write(payload[start : start + PIECE_BYTES])
            os.fsync(file.fileno())  # else the disk is still being written while turns are measured


def measure_time(options: argparse.Namespace) -> None:
    """Take turns between the floor and FedAvg; print the medians."""
    import torch

    from edge.wire import read_file
    from fl.strategies import STRATEGIES

    torch.set_num_threads(options.threads)
    spec, paths = _spec(options), _paths(options)
    weights = read_file(options.folder / "weights", spec)

    def floor() -> None:
        for path in paths:
            # As one: a sum for each tensor takes a tenth longer, since threads wait for each other at the end of each.
            _mapped(path, options.parameters).sum()

    def fedavg() -> None:
        STRATEGIES["fedavg"].apply(weights, {}, _contributions(paths, spec), {})

    # The first turn brings the files into the page cache and wakes the threads.
    turns = [(_seconds(floor), _seconds(fedavg)) for _ in range(options.turns + 1)][1:]
    low, median, high = statistics.quantiles((fedavg / floor for floor, fedavg in turns), n=4)
    measured = {
        "floor_s": statistics.median(floor for floor, _ in turns),
        "fedavg_s": statistics.median(fedavg for _, fedavg in turns),
        "low": low,
        "ratio": median,
        "high": high,
    }
    print(json.dumps(measured))


def measure_memory(options: argparse.Namespace) -> None:
    """Aggregate once, as the server does, and print the highest resident size."""
    import torch

    from edge.wire import read_file
    from fl.strategies import STRATEGIES

    torch.set_num_threads(options.threads)
    spec, strategy = _spec(options), STRATEGIES[options.strategy]
    weights = read_file(options.folder / "weights", spec)
    state = strategy.initial_state(weights, {})
    strategy.apply(weights, state, _contributions(_paths(options), spec), {})
    _print_peak()


def measure_import(options: argparse.Namespace) -> None:
    """Import what aggregation needs and print the highest resident size: what no aggregation can go below."""
    for module in ("edge.wire", "fl.strategies"):
        importlib.import_module(module)
    _print_peak()


PARTS = {"write": write, "time": measure_time, "memory": measure_memory, "import": measure_import}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[20, 100], help="numbers of updates")
    parser.add_argument("--parameters", type=int, default=10_000_000, help="float32 in each update")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for floor and aggregation alike")
    parser.add_argument("--turns", type=int, default=7, help="how often floor and aggregation alternate")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--strategy", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(options: argparse.Namespace, part: str, folder: str, count: int, strategy: str = "fedavg") -> dict[str, float]:
    """Run one part of the benchmark in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "benchmarks.aggregation", "--part", part, "--folder", folder]
    command += ["--count", str(count), "--strategy", strategy, "--parameters", str(options.parameters)]
    command += ["--threads", str(options.threads), "--turns", str(options.turns)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout or "{}")
    return measured


def _spec(options: argparse.Namespace) -> "Spec":
    import torch

    from edge.weights import spec_of

    layers = torch.empty(options.parameters, device="meta").chunk(LAYERS)
    return spec_of({f"layer{index}.weight": layer for index, layer in enumerate(layers)})


def _paths(options: argparse.Namespace) -> list[Path]:
    return [options.folder / f"update-{index}" for index in range(options.count)]


def _contributions(paths: list[Path], spec: "Spec") -> "list[Contribution]":
    from edge.wire import read_file
    from fl.strategies import Contribution

    return [Contribution(10 + index % 7, partial(read_file, path, spec)) for index, path in enumerate(paths)]


def _mapped(path: Path, parameters: int) -> "torch.Tensor":
    """Map a file's tensors as one, with the kernel told that it will be read in order, and nothing checked."""
    import torch

    with path.open("rb") as file:
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    buffer.madvise(mmap.MADV_SEQUENTIAL)
    return torch.frombuffer(buffer, dtype=torch.float32, count=parameters, offset=len(buffer) - 4 * parameters)


def _print_peak() -> None:
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"peak_mb": kilobytes * 1024 / 1e6}))


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
