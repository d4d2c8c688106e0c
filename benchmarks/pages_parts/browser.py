"""What a real Chromium says of a page: paints, tasks, shifts, frames, memory, and what came over the network."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, CDPSession, Page, Response, sync_playwright

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
WATCH = """
window.seen = { lcp: 0, longest: 0, shift: 0 };
const watch = (type, take) =>
  new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: true });
watch("largest-contentful-paint", (entry) => (window.seen.lcp = entry.startTime));
watch("longtask", (entry) => (window.seen.longest = Math.max(window.seen.longest, entry.duration)));
let sum = 0, begun = -Infinity, last = -Infinity;
watch("layout-shift", (entry) => {
  if (entry.hadRecentInput) return;
  if (entry.startTime - last > 1000 || entry.startTime - begun > 5000) [sum, begun] = [0, entry.startTime];
  [sum, last] = [sum + entry.value, entry.startTime];
  window.seen.shift = Math.max(window.seen.shift, sum);
});
"""
FRAMES = """async (seconds) => {
  let frames = 0;
  const start = performance.now();
  while (performance.now() - start < seconds * 1000) {
    await new Promise(requestAnimationFrame);
    frames += 1;
  }
  return (frames * 1000) / (performance.now() - start);
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the distribution's Chromium."""
    path = next((each for each in CHROMIUM if Path(each).exists()), None)
    if path is None:
        raise SystemExit("there is no Chromium: install it, on Debian by `apt-get install chromium`")
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@dataclass
class Loaded:
    """A page that is open, and all that it fetched."""

    page: Page
    cdp: CDPSession
    responses: list[Response] = field(default_factory=list)

    def seen(self) -> dict[str, float]:
        """Return the largest paint and the longest task in ms, and the cumulative layout shift."""
        seen: dict[str, float] = self.page.evaluate("window.seen")
        return seen

    def frames_a_second(self, seconds: float) -> float:
        """Return how many frames a second the page is given, over some seconds."""
        return float(self.page.evaluate(FRAMES, seconds))

    def heap_mb(self) -> float:
        """Return how much memory the page's scripts hold after a forced collection."""
        self.cdp.send("HeapProfiler.collectGarbage")
        return self._metric("JSHeapUsedSize") / 1e6

    def script_s(self) -> float:
        """Return the CPU seconds that scripts, styles and layout have taken since the page was opened."""
        return sum(self._metric(name) for name in ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration"))

    @contextmanager
    def profile(self, *names: str) -> Iterator[list[float]]:
        """Sample what scripts do, and put the CPU seconds of files so named, with all they call, into the list."""
        taken: list[float] = []
        self.cdp.send("Profiler.enable")
        self.cdp.send("Profiler.setSamplingInterval", {"interval": 100})
        self.cdp.send("Profiler.start")
        yield taken
        taken.append(_seconds_of(self.cdp.send("Profiler.stop")["profile"], names))

    def _metric(self, name: str) -> float:
        metrics = self.cdp.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == name))

    def gzipped(self, suffix: str) -> int:
        """Return the bytes of all files with this suffix that were fetched, each gzipped."""
        bodies = [response.body() for response in self.responses if urlsplit(response.url).path.endswith(suffix)]
        return sum(len(gzip.compress(body, 9)) for body in bodies)


def _seconds_of(profile: dict[str, Any], names: tuple[str, ...]) -> float:
    """Return how long functions of files so named were on the stack."""
    nodes = {node["id"]: node for node in profile["nodes"]}
    inside: set[int] = set()
    # A parent stands before its children.
    for number, node in nodes.items():
        if number in inside or Path(node["callFrame"]["url"]).name.startswith(names):
            inside.update([number, *node.get("children", [])])
    microseconds: float = sum(
        delta for number, delta in zip(profile["samples"], profile["timeDeltas"], strict=True) if number in inside
    )
    return microseconds / 1e6


@contextmanager
def opened(browser: Browser, base: str, cookie: str, path: str = "/") -> Iterator[Loaded]:
    """Open a page of the server in a context of its own, and return when it is live."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    name, value = cookie.split("=", 1)
    context.add_cookies([{"name": name, "value": value, "url": base}])
    page = context.new_page()
    page.add_init_script(WATCH)
    loaded = Loaded(page, context.new_cdp_session(page))
    loaded.cdp.send("Performance.enable")
    page.on("response", lambda response: loaded.responses.append(response))
    page.goto(base + path)
    page.wait_for_selector('[data-part=pill][data-state="live"]', timeout=60_000)
    page.wait_for_timeout(1000)
    yield loaded
    context.close()


def empty(browser: Browser) -> Page:
    """Return a page with nothing on it, beside which the machine's own pace is seen."""
    return browser.new_context(viewport={"width": 1440, "height": 900}).new_page()


def newest_keys(page: Page) -> list[str]:
    """Return the positions of the events that the feed shows, newest first."""
    keys: list[Any] = page.evaluate(
        "[...document.querySelectorAll('[data-list=feed] > li')].map(row => row.dataset.key)"
    )
    return [str(key) for key in keys]
