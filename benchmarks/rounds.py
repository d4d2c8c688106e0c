"""The main job beside its floor: ten devices over the real wire, and the bare loop that does the same work.

    python benchmarks/rounds.py                   ten devices, 20 rounds, digits with a CNN of about 14,000 parameters
    python benchmarks/rounds.py --turns 5         the median of five turns of each, which alternate

Floor: one process, one torch thread, no network, no disk: each round trains the ten devices one after the other,
takes the weighted mean, evaluates on the test split. QFLARE: `manage.py serve` with its embedded default (SQLite,
in-memory layer) and one `edge fleet` process with its own (a training thread for each core, one torch thread for each),
started from nothing; the devices have their own keys, sockets and data.
Round times are what the server's database says: from one round's end to the next one's.
"""

import argparse
import json
import os
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edge.tasks import TrainingSettings

ROOT = Path(__file__).resolve().parent.parent
TASK = "digits-cnn"
SEED = 7
GIVE_UP_SECONDS = 300
TARGETS = {"overhead_ms": 50.0, "run_ratio": 2.0, "first_round_s": 8.0}


def main() -> None:
    options = _options()
    if options.part == "floor":
        print(json.dumps(floor(options.devices, options.rounds)))
        return
    floors, runs = [], []
    for turn in range(options.turns):
        floors.append(_floor_in_a_process(options))
        runs.append(real_run(options.devices, options.rounds))
        print(
            f"turn {turn + 1}/{options.turns}: floor {floors[-1]['run_s']:.2f} s, run {runs[-1]['run_s']:.2f} s",
            flush=True,
        )
    _print_table(floors, runs)


def floor(devices: int, rounds: int) -> dict[str, float]:
    """Do the work of a run in one thread with plain PyTorch, and nothing else."""
    began = time.perf_counter()
    import torch

    from edge.partition import Partition
    from edge.tasks import DataSource, build_model, find_task

    torch.set_num_threads(1)
    task = find_task(TASK)
    sources = [DataSource(partition=Partition("iid", index, devices, seed=SEED)) for index in range(devices)]
    examples = [task.training_examples(source) for source in sources]
    test = task.test_examples()
    if test is None:
        raise SystemExit(f"{TASK} has no test split")
    model = build_model(task, SEED)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The first optimizer of a process loads a compiler for a second: the loop's start, not its rounds.
    torch.optim.SGD(model.parameters(), lr=0.1)
    imported = time.perf_counter()
    times = []
    for number in range(rounds):
        start = time.perf_counter()
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        for index, own in enumerate(examples):
            model.load_state_dict(weights)
            _train_bare(model, own.inputs, own.targets, task.defaults, seed=number * devices + index)
            for name, tensor in model.state_dict().items():
                total[name].add_(tensor, alpha=len(own))
        count = sum(len(own) for own in examples)
        weights = {name: tensor / count for name, tensor in total.items()}
        model.load_state_dict(weights)
        with torch.no_grad():
            accuracy = (model.eval()(test.inputs).argmax(dim=1) == test.targets).float().mean().item()
        times.append(time.perf_counter() - start)
    return {
        "import_s": imported - began,
        "round_ms": statistics.median(times) * 1000,
        "run_s": sum(times),
        "accuracy": accuracy,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _train_bare(model: "nn.Module", x: "Tensor", y: "Tensor", settings: "TrainingSettings", seed: int) -> None:
    """One local epoch as anybody would write it."""
    import torch

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate, momentum=settings.momentum)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    for start in range(0, len(x), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(model(x[batch]), y[batch]))
        optimizer.step()


def _floor_in_a_process(options: argparse.Namespace) -> dict[str, float]:
    arguments = ["--part", "floor", "--devices", str(options.devices), "--rounds", str(options.rounds)]
    answer = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True, cwd=ROOT, env=_environment()
    )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def real_run(devices: int, rounds: int) -> dict[str, float]:
    """Start a server and a fleet from nothing, let a run complete, and read what the database says of it."""
    with tempfile.TemporaryDirectory(prefix="rounds-") as folder:
        data = Path(folder)
        environment = _environment(QFLARE_DATA_DIR=str(data), QFLARE_LOG_LEVEL="WARNING")
        port = _free_port()
        _manage(environment, "migrate", "--verbosity", "0")
        tokens = data / "tokens"
        tokens.write_text(_manage(environment, "shell", "--verbosity", "0", "-c", _issue_tokens(devices)))
        began = time.time()
        server = _start(environment, data, "server", ["manage.py", "serve", "--port", str(port)])
        try:
            _wait_for_port(port, server)
            fleet = _start(environment, data, "fleet", _fleet_arguments(data, port, devices, tokens))
            try:
                _manage(environment, "shell", "--verbosity", "0", "-c", _start_run(devices, rounds))
                _wait_for_end(data / "qflare.sqlite3", server, fleet)
                peaks = {"server_mb": _peak_mb(server), "fleet_mb": _peak_mb(fleet)}
            finally:
                _stop(fleet)
        finally:
            _stop(server)
        return {**_figures(data / "qflare.sqlite3", began), **peaks}


def _fleet_arguments(data: Path, port: int, devices: int, tokens: Path) -> list[str]:
    return [
        *("-m", "edge", "fleet", f"http://127.0.0.1:{port}", "--devices", str(devices)),
        *("--tokens-file", str(tokens), "--home", str(data / "fleet"), "--task", TASK),
        *("--partition", f"iid:0/{devices}:{SEED}"),
    ]


def _issue_tokens(devices: int) -> str:
    return (
        "from datetime import timedelta; from django.utils import timezone; from fl.devices import issue_token\n"
        f"for number in range({devices}):\n"
        "    print(issue_token(label='benchmark', auto_approve=True, lifetime=timedelta(hours=1), created_by=None,"
        " now=timezone.now())[1])\n"
    )


def _start_run(devices: int, rounds: int) -> str:
    return (
        "from django.utils import timezone; from fl.runs import RunPlan, create_run, start_run\n"
        f"plan = RunPlan(name='benchmark', task='{TASK}', rounds={rounds}, cohort_size={devices}, local_epochs=1,"
        f" seed={SEED}, cohort_wait_seconds=120)\n"
        "start_run(run=create_run(plan=plan, created_by=None, now=timezone.now()), now=timezone.now())\n"
    )


def _figures(database: Path, began: float) -> dict[str, float]:
    rows = _query(database, "SELECT started_at, ended_at FROM fl_round ORDER BY number")
    ends = [_moment(end) for _, end in rows]
    started = _moment(rows[0][0])
    [(metrics,)] = _query(database, "SELECT metrics FROM fl_globalmodel ORDER BY version DESC LIMIT 1")
    return {
        "first_round_s": ends[0] - began,
        "round_ms": statistics.median(after - before for before, after in pairwise(ends)) * 1000,
        "run_s": ends[-1] - started,
        "accuracy": json.loads(metrics)["accuracy"],
    }


def _wait_for_end(database: Path, *processes: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < give_up_at:
        for process in processes:
            if process.poll() is not None:
                raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        states = _query(database, "SELECT state, reason FROM fl_run")
        if states and states[0][0] in ("completed", "failed", "stopped"):
            if states[0][0] != "completed":
                raise SystemExit(f"the run {states[0][0]}: {states[0][1]}")
            return
        time.sleep(0.25)
    raise SystemExit(f"the run did not end within {GIVE_UP_SECONDS} s")


def _query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _moment(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "qflare.settings", **changes}


def _manage(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def _start(environment: dict[str, str], data: Path, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    with (data / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def _peak_mb(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _print_table(floors: list[dict[str, float]], runs: list[dict[str, float]]) -> None:
    middle = statistics.median
    floor_ms, run_ms = middle(one["round_ms"] for one in floors), middle(one["round_ms"] for one in runs)
    overhead = middle(run["round_ms"] - one["round_ms"] for run, one in zip(runs, floors, strict=True))
    ratio = middle(run["run_s"] / one["run_s"] for run, one in zip(runs, floors, strict=True))
    first = middle(one["first_round_s"] for one in runs)
    print(f"\n{'':34}{'bare loop':>12}{'QFLARE':>12}{'to reach':>12}")
    print(f"{'median round, ms':34}{floor_ms:>12.0f}{run_ms:>12.0f}")
    print(f"{'median round above the loop, ms':34}{'':>12}{overhead:>12.0f}{TARGETS['overhead_ms']:>12.0f}")
    floor_s, run_s = middle(one["run_s"] for one in floors), middle(one["run_s"] for one in runs)
    print(f"{'whole run, s':34}{floor_s:>12.2f}{run_s:>12.2f}")
    print(f"{'whole run, times the loop':34}{1.0:>12.2f}{ratio:>12.2f}{TARGETS['run_ratio']:>12.2f}")
    print(
        f"{'command to first trained round, s':34}{middle(one['import_s'] for one in floors):>12.2f}"
        f"{first:>12.2f}{TARGETS['first_round_s']:>12.2f}"
    )
    print(f"{'test accuracy':34}{floors[-1]['accuracy']:>12.4f}{runs[-1]['accuracy']:>12.4f}")
    print(f"{'peak memory, MB':34}{max(one['peak_mb'] for one in floors):>12.0f}", end="")
    print(f"{max(one['server_mb'] for one in runs):>8.0f} server {max(one['fleet_mb'] for one in runs):.0f} fleet")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The main job beside its floor.")
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--part", choices=["floor"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
