"""Fan-out side by side: the stock recipe, QFLARE on Daphne and on uvicorn, and a bare broadcast as the floor.

    python benchmarks/fanout.py                                  everything; about an hour and a half
    python benchmarks/fanout.py --quick                          to see that all works; no measurement
    python benchmarks/fanout.py --sizes 1000 --parts fanout      some of it
    python benchmarks/fanout.py --servers daphne,websockets

stock        AsyncJsonWebsocketConsumer, `group_send`, in-memory layer, stock Daphne
daphne       `manage.py serve --no-coordinator`, production settings, dashboards that are signed in
uvicorn      the same with `--server uvicorn`
websockets   `broadcast` of the `websockets` library, without compression: the floor

At each size all servers run at once, each with its subscribers, and blocks alternate between them. A block is some
seconds at saturation (at most 8 events on their way), then a fixed rate; the stock recipe gets half of what it can do
where it cannot keep that. A publisher thread in the server's process makes events of 300 bytes: at QFLARE ticks with
distinct keys (`events.tick`) and, as a row of its own, durable events (`events.record`, one transaction each). The
subscribers are raw sockets in a process of their own. Figures are medians over the blocks; percentiles are over all
blocks' events.

CPU is all that the server's process uses, by the kernel's clock of it, the publisher included.
"""

import argparse
import json
import math
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from fanout_parts import measure
from fanout_parts.house import CONNECTIONS_PER_PERSON, KINDS, House, Stand, require_uvicorn
from fanout_parts.measure import Plan, Row
from fanout_parts.processes import raise_open_files, require_open_files
from fanout_parts.report import OTHERS_ARE_BUSY, QFLARE, Results, print_results

PARTS = ("fanout", "burst", "storm", "idle", "polling")
BURST_SUBSCRIBERS = 100
QUICK = {
    "sizes": [100, 200],
    "blocks": 1,
    "seconds": 1.0,
    "events": 50,
    "idle_seconds": 60.0,
    "burst": 2000,
    "clients": 200,
}


def main() -> None:
    options = _options()
    # Asked to end, it takes its servers and its folder with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    raise_open_files()
    require_open_files(max([*options.sizes, options.clients]))
    if "uvicorn" in options.servers:
        require_uvicorn()
    print(_heading(options), flush=True)
    results = Results()
    with tempfile.TemporaryDirectory(prefix="fanout-") as folder:
        most = max([*options.sizes, options.clients, BURST_SUBSCRIBERS])
        house = House(Path(folder), people=math.ceil(most / CONNECTIONS_PER_PERSON))
        if "fanout" in options.parts:
            for size in options.sizes:
                fan_out(house, size, options, results)
        if "burst" in options.parts:
            burst(house, options, results)
        if "storm" in options.parts:
            storm(house, options, results)
        if "idle" in options.parts:
            idle(house, options, results)
        if "polling" in options.parts:
            say(f"polling: {options.clients:,} clients, {options.idle_seconds:g} s")
            results.polling = {
                **measure.polling(house, options.clients, options.idle_seconds),
                "clients": options.clients,
            }
    print_results(results)
    if options.quick:
        print(f"\n{_not_a_measurement(options)}")
    if options.save:
        options.save.write_text(json.dumps(asdict(results), indent=1))


def fan_out(house: House, size: int, options: argparse.Namespace, results: Results) -> None:
    """Measure all servers with so many subscribers, in turns."""
    plan = Plan(options.seconds, options.rate, math.ceil(options.events / options.blocks))
    with ExitStack() as stack:
        stands = _open(house, options.servers, stack)
        for stand in stands:
            say(f"{size:,} subscribers connect to {stand.kind.title}")
            steps = measure.memory_kb(stand, max(size // 3, 1), size, options.connect_rate)
            results.memory.setdefault(stand.kind.name, []).append(steps)
        turns = [
            (stand, Row(stand.kind.name, stand.kind.title, mode, size)) for stand in stands for mode in stand.kind.modes
        ]
        for number in range(1, options.blocks + 1):
            for stand, row in turns:
                known = row.blocks[0].rate if row.blocks else None
                block = measure.block(stand, row.mode, plan, known)
                row.blocks.append(block)
                busy = f" BUSY: others use {block.others:.0%} of the machine" if block.others > OTHERS_ARE_BUSY else ""
                say(
                    f"{size:,} subscribers, block {number}/{options.blocks}, {row.title}, {row.mode}: "
                    f"{block.cpu_s:.4f} CPU s per 1,000, p50 {block.p50_ms:.1f} ms at {block.rate:.3g}/s, "
                    f"lost {block.lost}; load before {block.load:.1f}{busy}"
                )
        for stand, row in turns:
            row.pooled = stand.generator.ask("summary", pool=row.mode)
            results.rows.append(row)


def burst(house: House, options: argparse.Namespace, results: Results) -> None:
    """Publish a burst of durable events at each QFLARE."""
    for name in _qflare(options.servers):
        with ExitStack() as stack:
            [stand] = _open(house, [name], stack)
            stand.fill(BURST_SUBSCRIBERS, options.connect_rate)
            say(f"burst: {options.burst:,} durable events to {BURST_SUBSCRIBERS}, {stand.kind.title}")
            results.bursts[name] = {**measure.burst(stand, options.burst), "subscribers": BURST_SUBSCRIBERS}


def storm(house: House, options: argparse.Namespace, results: Results) -> None:
    """Let clients come to each server all at once."""
    for name in options.servers:
        with ExitStack() as stack:
            [stand] = _open(house, [name], stack)
            say(f"storm: {options.clients:,} clients come to {stand.kind.title}")
            results.storms[stand.kind.title] = {**measure.storm(stand, options.clients), "clients": options.clients}


def idle(house: House, options: argparse.Namespace, results: Results) -> None:
    """Let clients be connected to each QFLARE and nothing happen."""
    for name in _qflare(options.servers):
        with ExitStack() as stack:
            [stand] = _open(house, [name], stack)
            stand.fill(options.clients, options.connect_rate)
            say(f"idle: {options.clients:,} clients, {options.idle_seconds:g} s, {stand.kind.title}")
            results.idle[name] = {**measure.idle(stand, options.idle_seconds), "clients": options.clients}


def _open(house: House, servers: Iterable[str], stack: ExitStack) -> list[Stand]:
    stands = []
    for name in servers:
        stand = house.open(KINDS[name])
        stack.callback(house.close, stand)
        stands.append(stand)
    for stand in stands:
        stand.server.wait_for_port(stand.port)
    return stands


def _qflare(servers: list[str]) -> list[str]:
    return [name for name in servers if name in QFLARE]


def say(text: str) -> None:
    """Tell how far the benchmark is; not part of its result."""
    print(text, file=sys.stderr, flush=True)


def _heading(options: argparse.Namespace) -> str:
    names = ("django", "channels", "daphne", "uvicorn", "websockets")
    lines = [
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names),
        f"{options.blocks} blocks: {options.seconds:g} s at saturation, then {options.rate:g} events/s, "
        f"{options.events:,} events in all; load at the start {os.getloadavg()[0]:.1f}",
    ]
    return "\n".join([_not_a_measurement(options), *lines] if options.quick else lines)


def _not_a_measurement(options: argparse.Namespace) -> str:
    return (
        f"QUICK RUN, no measurement: {options.blocks} block(s), percentiles over {options.events} events, "
        f"{options.idle_seconds:g} s idle, a burst of {options.burst:,}"
    )


def _list_of(choices: Iterable[str], text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in choices]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {','.join(choices)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fan-out of one event to many subscribers, side by side.")
    parser.add_argument("--quick", action="store_true", help="few, short blocks, few subscribers: to see that it works")
    parser.add_argument("--servers", type=lambda text: _list_of(KINDS, text), default=list(KINDS), help="a,b,c")
    parser.add_argument("--parts", type=lambda text: _list_of(PARTS, text), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], help="subscribers: a,b,c")
    parser.add_argument("--blocks", type=int, help="turns of each row (default 5)")
    parser.add_argument("--seconds", type=float, help="of saturation in a block (default 3)")
    parser.add_argument("--rate", type=float, default=10.0, help="events a second at the fixed rate (default 10)")
    parser.add_argument("--events", type=int, help="at the fixed rate, over all blocks of a row (default 1000)")
    parser.add_argument("--burst", type=int, help="durable events of the burst (default 10000)")
    parser.add_argument("--clients", type=int, help="that idle, and that poll (default 1000)")
    parser.add_argument("--idle-seconds", type=float, help="(default 300)")
    parser.add_argument("--connect-rate", type=float, default=150.0, help="new sockets a second (default 150)")
    parser.add_argument("--save", type=Path, help="a file that all figures are written to, as JSON")
    options = parser.parse_args()
    full = {"sizes": [100, 200, 500, 1000, 3000], "blocks": 5, "seconds": 3.0, "events": 1000, "idle_seconds": 300.0}
    defaults = QUICK if options.quick else {**full, "burst": 10_000, "clients": 1000}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    main()
