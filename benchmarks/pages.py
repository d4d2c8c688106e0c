"""What the overview costs in a real browser with 500 devices, 1,000 rounds and 1,000 events a second.

    python benchmarks/pages.py                  everything: about 20 minutes, ten of them for the memory
    python benchmarks/pages.py --runs 1 --heap-minutes 1

The server is QFLARE as shipped; the load comes from within its process by the ways that the server's own use cases take
(`fl.events.tick_device` and `record`), over a real socket. Each figure is the median of five runs, beside an empty page
in the same Chromium, so that a busy machine shows.
"""

import argparse
import json
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fanout_parts.processes import Program, clean_environment, free_port, run
from pages_parts.browser import Loaded, chromium, empty, newest_keys, opened
from playwright.sync_api import Browser

PACKAGE = "pages_parts"
LOAD = 1000
FRAME_SECONDS = 10.0
CLS_SECONDS = 60.0
REDRAWS = 40
CURVE = ("curve.", "curve-plot.", "series.", "uPlot.")
"""The files that read and draw the curves, as their names begin once they are collected."""


@dataclass
class Figures:
    """What was measured, a value for each run."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Take a value."""
        self.values.setdefault(name, []).append(value)


TO_REACH = {
    "JavaScript, KB gzipped": ("≤", 60),
    "CSS, KB gzipped": ("≤", 12),
    "requests of a first visit": (None, 0),
    "DOM nodes": ("≤", 2500),
    "largest paint, ms": ("≤", 1000),
    "longest task until live, ms": ("≤", 150),
    "overview served, ms": ("≤", 150),
    "frames a second, empty page": (None, 0),
    "frames a second under load": ("≥", 45),
    "events missing in the feed": ("≤", 0),
    "layout shift in a minute with a disconnect": ("≤", 0.02),
    "CPU of a redraw of 10,000 rounds, curves, ms": ("≤", 5),
    "CPU of a repaint with 10,000 rounds, whole page, ms": (None, 0),
    "heap, MB more in ten minutes": ("≤", 1),
}


class Stand:
    """A server over a database of its own."""

    def __init__(self, folder: Path, name: str, devices: int, rounds: int, cohort: int) -> None:
        """Prepare and start it."""
        environment = clean_environment(QFLARE_DATA_DIR=str(folder / name), QFLARE_LOG_LEVEL="WARNING")
        assignments = folder / f"{name}.json"
        prepared = run("prepare", devices, rounds, cohort, assignments, environment=environment, package=PACKAGE)
        self.cookie = prepared.strip().splitlines()[-1]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Program(
            "serve", self.port, assignments, log=folder / f"{name}.log", environment=environment, package=PACKAGE
        )
        self.server.wait_for_port(self.port)
        self._next = 1

    def tell_load(self, seconds: float) -> None:
        """Let events come for some seconds; `server.answer()` returns when they have."""
        count = int(LOAD * seconds)
        self.server.tell("pace", mode="load", first=self._next, count=count, rate=LOAD)
        self._next += count

    def served_ms(self) -> float:
        """Return how long the server takes to answer the overview."""
        request = urllib.request.Request(self.url, headers={"Cookie": self.cookie})  # noqa: S310 – it is our own http address
        started = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 – as above
            answer.read()
        return (time.perf_counter() - started) * 1000


def first_visit(browser: Browser, stand: Stand, figures: Figures) -> None:
    """Measure what opening the page costs."""
    with opened(browser, stand.url, stand.cookie) as loaded:
        seen = loaded.seen()
        figures.add("largest paint, ms", seen["lcp"])
        figures.add("longest task until live, ms", seen["longest"])
        figures.add("JavaScript, KB gzipped", loaded.gzipped(".js") / 1000)
        figures.add("CSS, KB gzipped", loaded.gzipped(".css") / 1000)
        figures.add("requests of a first visit", len(loaded.responses))
        figures.add("DOM nodes", float(loaded.page.evaluate("document.querySelectorAll('*').length")))
    figures.add("overview served, ms", median(stand.served_ms() for _ in range(5)))


def under_load(browser: Browser, stand: Stand, figures: Figures) -> None:
    """Measure frames while 1,000 events a second come, and look whether the newest of those recorded are all there."""
    control = empty(browser)
    with opened(browser, stand.url, stand.cookie) as loaded:
        stand.tell_load(FRAME_SECONDS + 2)
        loaded.page.wait_for_timeout(1000)
        figures.add("frames a second under load", loaded.frames_a_second(FRAME_SECONDS))
        stand.server.answer()
        loaded.page.wait_for_timeout(1000)
        figures.add("events missing in the feed", float(_missing(stand, loaded)))
    idle = Loaded(control, control.context.new_cdp_session(control))
    figures.add("frames a second, empty page", idle.frames_a_second(3))
    control.context.close()


def _missing(stand: Stand, loaded: Loaded) -> int:
    """Return how many of the log's newest events, as far back as the feed reaches, the feed does not show."""
    shown = [int(key.split("#")[1]) for key in newest_keys(loaded.page) if key.startswith("system#")]
    request = urllib.request.Request(  # noqa: S310 – it is our own http address
        f"{stand.url}/api/v1/events/?stream=system&after={min(shown) - 1}&limit=500", headers={"Cookie": stand.cookie}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 – as above
        logged = [event["seq"] for event in json.load(answer)["events"] if event["event"] == "error_notification"]
    return len(set(logged) - set(shown))


def shifts(browser: Browser, stand: Stand, figures: Figures) -> None:
    """Measure how much the page moves under its reader in a minute of load, within which the network goes and comes."""
    with opened(browser, stand.url, stand.cookie) as loaded:
        stand.tell_load(CLS_SECONDS)
        loaded.page.wait_for_timeout(CLS_SECONDS * 400)
        loaded.page.context.set_offline(True)
        loaded.page.wait_for_timeout(8000)
        loaded.page.context.set_offline(False)
        loaded.page.wait_for_selector('[data-part=pill][data-state="live"]', timeout=60_000)
        stand.server.answer()
        figures.add("layout shift in a minute with a disconnect", loaded.seen()["shift"])


def redraws(browser: Browser, stand: Stand, figures: Figures) -> None:
    """Measure what a page computes for each end of a round: all of it together, and the curves alone."""
    with opened(browser, stand.url, stand.cookie) as loaded:
        before = loaded.script_s()
        _end_rounds(stand, loaded)
        spent = loaded.script_s() - before
        figures.add("CPU of a repaint with 10,000 rounds, whole page, ms", spent * 1000 / REDRAWS)
        with loaded.profile(*CURVE) as taken:
            _end_rounds(stand, loaded)
        figures.add("CPU of a redraw of 10,000 rounds, curves, ms", taken[0] * 1000 / REDRAWS)


def _end_rounds(stand: Stand, loaded: Loaded) -> None:
    """Tell the end of a round so many times, each to be painted alone."""
    for number in range(REDRAWS):
        stand.server.ask("burst", mode="rounds", first=number + 1, count=1)
        loaded.page.wait_for_timeout(120)


def heap(browser: Browser, stand: Stand, minutes: float, figures: Figures) -> None:
    """Measure how much more memory a page holds after minutes of load, collected before each reading."""
    with opened(browser, stand.url, stand.cookie) as loaded:
        stand.tell_load(60)
        stand.server.answer()
        begun = loaded.heap_mb()
        stand.tell_load(minutes * 60)
        stand.server.answer()
        figures.add("heap, MB more in ten minutes", (loaded.heap_mb() - begun) * 10 / minutes)


def print_table(figures: Figures) -> None:
    """Print what was measured beside what is to be reached."""
    print("| | to reach | median | all runs |\n|---|---|---|---|")
    for name, (sign, bound) in TO_REACH.items():
        values = figures.values.get(name)
        if not values:
            continue
        middle = median(values)
        missed = (sign == "≤" and middle > bound) or (sign == "≥" and middle < bound)
        reach = f"{sign} {bound:g}" if sign else ""
        runs = ", ".join(f"{value:.3g}" for value in values)
        print(f"| {name} | {reach} | {middle:.4g}{': no' if missed else ''} | {runs} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the overview costs in a real browser.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--heap-minutes", type=float, default=10.0, help="0 leaves it out")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="qflare-pages-") as text, chromium() as browser:
        folder = Path(text)
        stand = Stand(folder, "wide", devices=500, rounds=1000, cohort=120)
        for _ in range(options.runs):
            first_visit(browser, stand, figures)
            under_load(browser, stand, figures)
        shifts(browser, stand, figures)
        if options.heap_minutes:
            heap(browser, stand, options.heap_minutes, figures)
        stand.server.stop()
        long = Stand(folder, "long", devices=20, rounds=10_000, cohort=10)
        for _ in range(options.runs):
            redraws(browser, long, figures)
        long.server.stop()
    print_table(figures)


if __name__ == "__main__":
    main()
