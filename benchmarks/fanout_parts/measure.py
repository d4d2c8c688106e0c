"""What is measured: blocks at saturation and at a fixed rate, a burst, idling, and polling."""

import math
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from fanout_parts.house import KINDS, House, Stand
from fanout_parts.processes import Machine, Program, clean_environment

WINDOW = 8
"""At saturation, so many events are on their way at most."""
BUSY = 0.9
"""A generator above this share of its core may be what holds the server up."""
SPARE = 0.9
RATE_OF_CAPACITY = 0.5
"""A server that is spared, and to which the fixed rate is more than SPARE of what it can, gets this share of that."""
FEWEST_EVENTS = 3
PATIENCE_SECONDS = 30.0
BURST_MODE = "durable"
POLL_PERIOD_SECONDS = 30.0
ROWS_PER_SECOND = 0.2


@dataclass
class Block:
    """Figures of one turn of one row.

    Attributes:
        cpu_s: CPU seconds of the server per 1,000 deliveries, at saturation.
        paced_cpu_s: the same at the fixed rate.
        event_cpu_s: CPU seconds of the server per event, at the fixed rate.
        deliveries: a second, at saturation.
        generator: share of a core that the load generator used, at saturation.
        making_ms: of each event at the fixed rate, until its publisher could go on; a durable one is committed by then.
        load, others: the machine's load before, and the share of the machine that others used meanwhile.
    """

    cpu_s: float
    paced_cpu_s: float
    event_cpu_s: float
    deliveries: float
    generator: float
    p50_ms: float
    whole_p50_ms: float
    rate: float
    late_ms: float
    making_ms: list[float]
    published: int
    lost: int
    disordered: int
    closed: int
    frame_bytes: float
    load: float
    others: float


@dataclass
class Row:
    """One way of publishing at one server with so many subscribers."""

    server: str
    title: str
    mode: str
    size: int
    blocks: list[Block] = field(default_factory=list)
    pooled: dict[str, Any] = field(default_factory=dict)
    """Latencies over all blocks: events, p50_ms, p99_ms, whole_p50_ms, whole_p99_ms."""

    def median(self, name: str) -> float:
        """Return a figure's median over the blocks."""
        return float(median(getattr(block, name) for block in self.blocks))

    def total(self, name: str) -> int:
        """Return a figure's sum over the blocks."""
        return int(sum(getattr(block, name) for block in self.blocks))

    def pooled_ms(self, name: str) -> float:
        """Return a percentile over the events of all blocks; not a number where no event arrived."""
        return float(self.pooled.get(name, float("nan")))

    @property
    def making_p99_ms(self) -> float:
        """The 99th percentile of `making_ms` over the events of all blocks."""
        return float(np.percentile([ms for block in self.blocks for ms in block.making_ms], 99))


@dataclass(frozen=True)
class Plan:
    """How long blocks are.

    Attributes:
        seconds: of saturation.
        rate: events a second, afterwards.
        events: how many at that rate.
    """

    seconds: float
    rate: float
    events: int


def block(stand: Stand, mode: str, plan: Plan, known_rate: float | None) -> Block:
    """Let a server work at saturation, and then at the fixed rate, or at what it was found to keep."""
    machine = Machine(stand.house.programs())
    full = _phase(stand, mode, "saturate", {"seconds": plan.seconds, "window": WINDOW}, gives_tokens=True)
    rate = plan.rate
    if stand.kind.is_spared:
        rate = known_rate or _rate_for(full["delivered"] / full["wall_s"] / stand.size, plan)
    count = plan.events if rate == plan.rate else max(FEWEST_EVENTS, int(plan.events / plan.rate * rate))
    paced = _phase(stand, mode, "pace", {"rate": rate, "count": count}, pool=mode)
    return Block(
        cpu_s=full["cpu_s"] / max(full["delivered"], 1) * 1000,
        paced_cpu_s=paced["cpu_s"] / max(paced["delivered"], 1) * 1000,
        event_cpu_s=paced["cpu_s"] / paced["published"],
        deliveries=full["delivered"] / full["seconds"] if full["delivered"] else 0.0,
        generator=full["generator"],
        p50_ms=paced.get("p50_ms", float("nan")),
        whole_p50_ms=paced.get("whole_p50_ms", float("nan")),
        rate=rate,
        late_ms=paced["late_ms"],
        making_ms=paced["making_ms"],
        published=full["published"] + paced["published"],
        lost=full["lost"] + paced["lost"],
        disordered=full["disordered"] + paced["disordered"],
        closed=max(full["closed"], paced["closed"]),
        frame_bytes=paced["frame_bytes"],
        load=machine.load,
        others=machine.others(),
    )


def _rate_for(capacity: float, plan: Plan) -> float:
    """Return the events a second that a server is given which can do `capacity` of them."""
    return plan.rate if plan.rate <= SPARE * capacity else RATE_OF_CAPACITY * capacity


def _phase(
    stand: Stand, mode: str, do: str, arguments: dict[str, object], *, gives_tokens: bool = False, pool: str = ""
) -> dict[str, Any]:
    """Publish, wait until all has come, and return what server, generator and clocks say."""
    server, generator = stand.server, stand.generator
    generator.ask("arm", first=stand.next_event, gives_tokens=gives_tokens)
    begun, cpu, generator_cpu = time.monotonic(), server.cpu_s(), generator.cpu_s()
    published = server.ask(do, mode=mode, first=stand.next_event, **arguments)
    collected = generator.ask("collect", published=published["published"], patience=PATIENCE_SECONDS, pool=pool)
    wall = time.monotonic() - begun
    stand.next_event += published["published"]
    return {
        **published,
        **collected,
        "cpu_s": server.cpu_s() - cpu,
        "generator": (generator.cpu_s() - generator_cpu) / wall,
        "wall_s": wall,
    }


def burst(stand: Stand, count: int) -> dict[str, Any]:
    """Publish many durable events in one transaction."""
    machine = Machine(stand.house.programs())
    result = _phase(stand, BURST_MODE, "burst", {"count": count})
    return {**result, "load": machine.load, "others": machine.others()}


def storm(stand: Stand, clients: int) -> dict[str, float]:
    """Let all subscribers come as fast as they can, as after a restart, each for all that is told at first."""
    machine, cpu = Machine(stand.house.programs()), stand.server.cpu_s()
    seconds = stand.fill(clients, math.inf)
    used = stand.server.cpu_s() - cpu
    return {"seconds": seconds, "each_ms": used / clients * 1000, "load": machine.load, "others": machine.others()}


def idle(stand: Stand, seconds: float) -> dict[str, float]:
    """Let all subscribers be connected and nothing happen."""
    machine = Machine(stand.house.programs())
    before, cpu = stand.generator.ask("traffic"), stand.server.cpu_s()
    time.sleep(seconds)
    after, used = stand.generator.ask("traffic"), stand.server.cpu_s() - cpu
    if after["closed"]:
        raise SystemExit(
            f"{after['closed']} idle sockets were closed by {stand.kind.title}: {stand.server.last_words()}"
        )
    moved = sum(after[name] - before[name] for name in ("bytes_in", "bytes_out"))
    return {
        "seconds": seconds,
        "core": used / seconds,
        "bytes_an_hour": moved / stand.size / seconds * 3600,
        "load": machine.load,
        "others": machine.others(),
    }


def polling(house: House, clients: int, seconds: float) -> dict[str, float]:
    """Let clients poll the stock list instead, while a row is added now and then."""
    stand = house.open(KINDS["stock"])
    [cookie] = house.cookies_of(stand.kind)
    try:
        stand.server.wait_for_port(stand.port)
        pollers = Program(
            "polling",
            *(stand.port, cookie, clients, POLL_PERIOD_SECONDS, seconds),
            log=house.folder / "polling.log",
            environment=clean_environment(),
        )
        try:
            return _watch_polling(house, stand.server, pollers, clients, seconds)
        finally:
            pollers.stop()
    finally:
        house.close(stand)


def _watch_polling(house: House, server: Program, pollers: Program, clients: int, seconds: float) -> dict[str, float]:
    rows = int((seconds + POLL_PERIOD_SECONDS) * ROWS_PER_SECOND)
    server.tell("pace", mode="rows", first=10, count=rows, rate=ROWS_PER_SECOND)
    pollers.answer()
    machine, cpu = Machine([*house.programs(), pollers]), server.cpu_s()
    seen = pollers.answer()
    used = server.cpu_s() - cpu
    return {
        "seconds": seconds,
        "core": used / seconds,
        "requests_an_hour": seen["requests"] / clients / seconds * 3600,
        "bytes_an_hour": seen["bytes"] / clients / seconds * 3600,
        "p50_ms": seen["p50_ms"],
        "p99_ms": seen["p99_ms"],
        "load": machine.load,
        "others": machine.others(),
    }


def memory_kb(stand: Stand, fewer: int, more: int, rate: float) -> dict[str, float]:
    """Fill a server in two steps and return its memory at both, in KiB."""
    stand.fill(fewer, rate)
    small = stand.server.rss_kb()
    stand.fill(more, rate)
    large = stand.server.rss_kb()
    return {"fewer": fewer, "more": more, "small": small, "large": large, "each": (large - small) / (more - fewer)}
