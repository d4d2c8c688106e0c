"""The tables: what was measured, and the figures to reach beside those that were."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from statistics import median
from typing import Any

from fanout_parts.measure import BUSY, Row

QFLARE = ("daphne", "uvicorn")
RATE = 10
"""Events a second for which a latency is to be reached."""
FEWEST_BLOCKS = 5
FEWEST_EVENTS = 1000
FEWEST_SECONDS = 300
FEWEST_CLIENTS = 1000
FEWEST_IN_BURST = 10_000
OTHERS_ARE_BUSY = 0.1
"""Above this share of the machine, what others did may be seen in the figures."""


@dataclass
class Results:
    """All that one run of the benchmark has measured; what was left out is empty."""

    rows: list[Row] = field(default_factory=list)
    memory: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    bursts: dict[str, dict[str, Any]] = field(default_factory=dict)
    storms: dict[str, dict[str, float]] = field(default_factory=dict)
    idle: dict[str, dict[str, float]] = field(default_factory=dict)
    polling: dict[str, float] = field(default_factory=dict)

    def row(self, server: str, mode: str, size: int) -> Row | None:
        """Return a row, if it was measured."""
        return next((row for row in self.rows if (row.server, row.mode, row.size) == (server, mode, size)), None)

    def shares_of_others(self) -> list[float]:
        """Return what others used of the machine, in each block and part."""
        alone = [self.polling] if self.polling else []
        parts = [*self.bursts.values(), *self.storms.values(), *self.idle.values(), *alone]
        return [block.others for row in self.rows for block in row.blocks] + [part["others"] for part in parts]


def print_results(results: Results) -> None:
    """Print everything that was measured."""
    if results.rows:
        _print_rows(results.rows)
    if results.memory:
        _print_memory(results.memory)
    if results.bursts:
        _print_bursts(results.bursts)
    if results.storms:
        _print_storms(results.storms)
    if results.idle or results.polling:
        _print_idle(results)
    _print_targets(results)
    busy = [share for share in results.shares_of_others() if share > OTHERS_ARE_BUSY]
    if busy:
        print(
            f"\nTHE MACHINE WAS BUSY in {len(busy)} of {len(results.shares_of_others())} blocks and parts: others "
            f"used up to {max(busy):.0%} of all cores. Compare ratios of the same run only; times are upper bounds."
        )


def _table(title: str, head: list[str], lines: list[list[str]]) -> None:
    """Print a table that Markdown understands, too."""
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    print(f"\n{title}\n")
    for number, line in enumerate([head, *lines]):
        cells = [
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            print(
                "|"
                + "|".join(
                    "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)
                )
                + "|"
            )


def _print_rows(rows: list[Row]) -> None:
    for size in sorted({row.size for row in rows}):
        head = [
            *(
                "",
                "CPU s per 1,000",
                "at the rate",
                "deliveries/s",
                "events/s",
                "p50 ms",
                "p99 ms",
                "last p50",
                "last p99",
                "made p99",
            ),
            *("events", "lost", "out of order", "closed", "frame B"),
        ]
        _table(f"{size:,} subscribers", head, [_cells(row) for row in rows if row.size == size])
    print("\n≥: the load generator was above 90 % of its core, so the server may do more.")
    print("at the rate: CPU s per 1,000 deliveries at the fixed rate. last: until the last subscriber has the event.")
    print("made: until the event's publisher could go on; a durable one's transaction is on the disk by then.")
    print("events: those that the percentiles are over; the stock recipe has fewer where it cannot keep the rate.")


def _cells(row: Row) -> list[str]:
    bound = "≥ " if row.median("generator") > BUSY else ""
    return [
        f"{row.title}, {row.mode}",
        f"{row.median('cpu_s'):.4f}",
        f"{row.median('paced_cpu_s'):.4f}",
        f"{bound}{row.median('deliveries'):,.0f}",
        f"{row.median('rate'):.3g}",
        f"{row.pooled_ms('p50_ms'):.1f}",
        f"{row.pooled_ms('p99_ms'):.1f}",
        f"{row.pooled_ms('whole_p50_ms'):.1f}",
        f"{row.pooled_ms('whole_p99_ms'):.1f}",
        f"{row.making_p99_ms:.1f}",
        f"{row.pooled.get('events', 0):,}",
        f"{row.total('lost'):,}",
        f"{row.total('disordered'):,}",
        f"{max(block.closed for block in row.blocks):,}",
        f"{row.median('frame_bytes'):.0f}",
    ]


def _print_memory(memory: dict[str, list[dict[str, float]]]) -> None:
    lines = [
        [
            f"{title}",
            f"{step['fewer']:,.0f} → {step['more']:,.0f}",
            f"{step['small'] / 1024:.1f} → {step['large'] / 1024:.1f}",
            f"{step['each']:.1f}",
        ]
        for title, steps in memory.items()
        for step in steps
    ]
    _table("Memory of the server", ["", "subscribers", "RSS MiB", "KiB each"], lines)


def _print_bursts(bursts: dict[str, dict[str, Any]]) -> None:
    lines = [
        [
            name,
            *(f"{burst['published']:,}", f"{burst['subscribers']:,}", f"{burst['delivered']:,}"),
            *(f"{burst['lost']:,}", f"{burst['disordered']:,}", f"{burst['seconds']:.2f}"),
            f"{burst['cpu_s'] / burst['published'] * 1000:.2f}",
        ]
        for name, burst in bursts.items()
    ]
    head = ["", "events", "subscribers", "delivered", "lost", "twice or out of order", "s", "CPU ms an event"]
    _table("A burst of durable events in one transaction", head, lines)
    print("\ns: from the first event's making, transaction included, to the last arrival.")


def _print_storms(storms: dict[str, dict[str, float]]) -> None:
    lines = [
        [title, f"{storm['clients']:,}", f"{storm['seconds']:.1f}", f"{storm['each_ms']:.2f}"]
        for title, storm in storms.items()
    ]
    _table("All come at once", ["", "clients", "s until all are in", "CPU ms each"], lines)


def _print_idle(results: Results) -> None:
    lines = []
    if polling := results.polling:
        latency = f"{polling['p50_ms'] / 1000:.1f} / {polling['p99_ms'] / 1000:.1f} s"
        lines.append(["polling every 30 s", latency, f"{polling['requests_an_hour']:.0f}", *_idle_cells(polling)])
    for name, idle in results.idle.items():
        row = results.row(name, "durable", 1000)
        latency = f"{row.pooled_ms('p50_ms'):.1f} / {row.pooled_ms('p99_ms'):.1f} ms" if row else "not measured"
        lines.append([f"QFLARE, {name}", latency, "0", *_idle_cells(idle)])
    head = ["1,000 clients" if _is_thousand(results) else "clients", "p50 / p99 of an event", "requests an hour"]
    _table("Idle, and the polling that this replaces", [*head, "bytes an hour each", "CPU of one core", "s"], lines)


def _is_thousand(results: Results) -> bool:
    return all(part.get("clients", 1000) == 1000 for part in [*results.idle.values(), results.polling])


def _idle_cells(part: dict[str, float]) -> list[str]:
    return [f"{part['bytes_an_hour']:,.0f}", f"{part['core']:.2%}", f"{part['seconds']:.0f}"]


# ── what is to be reached ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Target:
    """A figure to reach: at most, or at least, `limit`.

    Attributes:
        value: None where it was not measured.
        is_enough: it was measured for long enough to say whether it is reached.
    """

    what: str
    value: float | None
    limit: float
    is_enough: bool
    at_least: bool = False
    form: str = ".2f"

    @property
    def verdict(self) -> str:
        if self.value is None or math.isnan(self.value):
            return "not measured"
        if not self.is_enough:
            return "too short to say"
        return "yes" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "**no**"


def _print_targets(results: Results) -> None:
    lines = [
        [
            target.what,
            f"{'≥' if target.at_least else '≤'} {target.limit:{target.form}}",
            "" if target.value is None else f"{target.value:{target.form}}",
            target.verdict,
        ]
        for target in [*_of_cpu(results), *_of_latency(results), *_of_delivery(results), *_of_idling(results)]
    ]
    _table("To reach", ["", "to reach", "measured", "reached"], lines)


def _of_cpu(results: Results) -> Iterator[Target]:
    stock, floor = results.row("stock", "events", 1000), results.row("websockets", "events", 1000)
    daphne, uvicorn = results.row("daphne", "ticks", 1000), results.row("uvicorn", "ticks", 1000)
    for name, words in (("cpu_s", "at saturation"), ("paced_cpu_s", "at the rate")):
        what = f"CPU of ticks to 1,000, {words}"
        enough = _has_blocks(stock, daphne, uvicorn, floor)
        yield Target(f"{what}: stock / Daphne", _ratio(stock, daphne, name), 60, enough, at_least=True, form=".1f")
        yield Target(f"{what}: Daphne / websockets", _ratio(daphne, floor, name), 1.2, enough)
        yield Target(f"{what}: uvicorn / websockets", _ratio(uvicorn, floor, name), 1.5, enough)
        used = daphne.median(name) if daphne else None
        yield Target(f"{what}: Daphne, s per 1,000 deliveries", used, 0.010, enough, form=".4f")
    for server in QFLARE:
        ticks, durable = results.row(server, "ticks", 1000), results.row(server, "durable", 1000)
        more = _more(ticks, durable)
        what = f"CPU that being durable adds, ms an event: {server}"
        yield Target(what, more, 3, _has_blocks(ticks, durable))


def _has_blocks(*rows: Row | None) -> bool:
    return all(len(row.blocks) >= FEWEST_BLOCKS for row in rows if row)


def _has_events(*rows: Row | None) -> bool:
    return all(row.pooled.get("events", 0) >= FEWEST_EVENTS for row in rows if row)


def _ratio(above: Row | None, below: Row | None, name: str) -> float | None:
    """Return the median of the ratios of each turn, whose blocks were measured one after the other."""
    if above is None or below is None:
        return None
    pairs = zip(above.blocks, below.blocks, strict=True)
    return float(median(getattr(one, name) / getattr(other, name) for one, other in pairs))


def _more(ticks: Row | None, durable: Row | None) -> float | None:
    """Return how many ms of CPU an event takes more when it is durable: the median over the turns."""
    if ticks is None or durable is None:
        return None
    pairs = zip(ticks.blocks, durable.blocks, strict=True)
    return median(after.event_cpu_s - before.event_cpu_s for before, after in pairs) * 1000


def _of_latency(results: Results) -> Iterator[Target]:
    floor = results.row("websockets", "events", 1000)
    for server, mode in product(QFLARE, ("ticks", "durable")):
        row = results.row(server, mode, 1000)
        for name, words in (("p99_ms", "p99"), ("whole_p99_ms", "p99 of the last")):
            value = row.pooled_ms(name) / floor.pooled_ms(name) if row and floor else None
            what = f"{words}, 1,000 subscribers: {server} {mode} / websockets"
            yield Target(what, value, 1.3, _has_events(row, floor))
    for server, mode in product(QFLARE, ("ticks", "durable")):
        row = results.row(server, mode, 200)
        kept = row if row and row.median("rate") == RATE else None
        value = kept.pooled_ms("p99_ms") if kept else None
        what = f"p99 ms, 200 subscribers, {RATE} events/s: {server} {mode}"
        yield Target(what, value, 50, _has_events(kept), form=".1f")


def _of_delivery(results: Results) -> Iterator[Target]:
    for server, (name, words) in product(QFLARE, (("lost", "lost"), ("disordered", "twice or out of order"))):
        own = [row for row in results.rows if row.server == server]
        value = sum(row.total(name) for row in own) if own else None
        sizes = {row.size for row in own}
        what = f"deliveries {words}, {len(sizes)} sizes: {server}"
        yield Target(what, value, 0, _has_blocks(*own), form=".0f")
        burst = results.bursts.get(server)
        enough = burst is not None and burst["published"] >= FEWEST_IN_BURST
        what = f"deliveries {words}, burst of durable events: {server}"
        yield Target(what, burst[name] if burst else None, 0, enough, form=".0f")


def _of_idling(results: Results) -> Iterator[Target]:
    polling = results.polling
    for server in QFLARE:
        steps = {step["more"]: step for step in results.memory.get(server, [])}
        each = steps[3000]["each"] if 3000 in steps else None
        yield Target(f"memory from 1,000 to 3,000, KiB a connection: {server}", each, 32, True, form=".1f")
    for server in QFLARE:
        idle, enough = results.idle.get(server, {}), _is_long(results.idle.get(server, {}))
        moved, used = (idle["bytes_an_hour"], idle["core"]) if idle else (None, None)
        yield Target(f"idle bytes an hour, both ways: {server}", moved, 5000, enough, form=",.0f")
        yield Target(f"idle CPU of one core, %: {server}", None if used is None else used * 100, 0.8, enough)
        ratio = polling["core"] / used if used and polling else None
        enough = enough and _is_long(polling)
        yield Target(f"CPU of polling / idle CPU: {server}", ratio, 30, enough, at_least=True, form=".1f")


def _is_long(part: dict[str, float]) -> bool:
    """Say whether a part was long and large enough: heartbeats come once a minute, small shares need many clients."""
    return bool(part) and part["seconds"] >= FEWEST_SECONDS and part["clients"] >= FEWEST_CLIENTS
