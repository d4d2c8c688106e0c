"""What the overview may weigh, with 500 devices and 1,000 rounds: bytes, queries, requests, nodes, shifts.

Times are measured by `benchmarks/pages.py`.
"""

import gzip
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import ROOT, World

DEVICES, ROUNDS, COHORT = 500, 1000, 120
MOST_SCRIPT_BYTES = 60_000
MOST_STYLE_BYTES = 12_000
MOST_REQUESTS = 40
MOST_NODES = 2500
MOST_SHIFT = 0.02
# Cumulative layout shift as browsers define it: the largest sum within five seconds without a pause of one.
WATCH_SHIFTS = """
window.shift = 0;
window.moved = [];
let sum = 0, begun = -Infinity, last = -Infinity;
const take = (entry) => {
  if (entry.hadRecentInput) return;
  if (entry.startTime - last > 1000 || entry.startTime - begun > 5000) [sum, begun] = [0, entry.startTime];
  [sum, last] = [sum + entry.value, entry.startTime];
  window.shift = Math.max(window.shift, sum);
  window.moved.push([entry.value, ...entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 120))]);
};
new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type: "layout-shift", buffered: true });
"""
ROWS = "[...document.querySelectorAll('[data-list=feed] li')]"
TROUBLES = 200
TELL = f"""
import time
from django.utils import timezone
from edge.protocol.server import ErrorNotification
from fl import events
for number in range({TROUBLES}):
    severity = "error" if number % 10 == 0 else "warning"
    detail = "word " * (number % 40)
    trouble = ErrorNotification(code="x", severity=severity, title=f"Trouble {{number}}", detail=detail)
    with events.transaction():
        events.record(events.SYSTEM, trouble, timezone.now())
    time.sleep(0.03)
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server with many devices and a long run, and the cookie of a viewer."""
    world = World(tmp_path_factory.mktemp("busy"))
    # While no coordinator is there to go on with the run.
    world.server.stop()
    environment = {**world.server.environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    command = [sys.executable, "-m", "pages_parts.prepare", str(DEVICES), str(ROUNDS), str(COHORT)]
    done = subprocess.run(
        [*command, str(world.folder / "open.json")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    world.server.start()
    yield world, done.stdout.strip().splitlines()[-1]
    world.close()


@pytest.fixture
def overview(busy, open_page):
    """The overview of the busy server, live, with all that it fetched."""
    world, cookie = busy
    page = open_page(world.url)
    name, value = cookie.split("=", 1)
    page.page.context.add_cookies([{"name": name, "value": value, "url": world.url}])
    page.page.add_init_script(WATCH_SHIFTS)
    fetched = []
    page.page.on("response", lambda response: fetched.append(response))
    page.page.goto(world.url)
    page.wait_until_live()
    page.page.wait_for_load_state("networkidle")
    return world, page, fetched


def gzipped(fetched, suffix):
    files = {response.url: response for response in fetched if urlsplit(response.url).path.endswith(suffix)}
    return sum(len(gzip.compress(response.body(), 9)) for response in files.values())


def test_the_overview_is_light_and_asks_for_little(overview):
    _, page, fetched = overview

    nodes = page.page.evaluate("document.querySelectorAll('*').length")
    weights = {"scripts": gzipped(fetched, ".js"), "styles": gzipped(fetched, ".css")}

    assert weights["scripts"] <= MOST_SCRIPT_BYTES, weights
    assert weights["styles"] <= MOST_STYLE_BYTES, weights
    assert len(fetched) <= MOST_REQUESTS, [response.url for response in fetched]
    assert nodes <= MOST_NODES
    assert page.faults == []
    assert page.foreign == []


def test_a_large_cohort_is_a_mosaic_with_those_that_want_a_look(overview):
    _, page, _ = overview

    cells = page.page.locator("[data-part=round] .mosaic rect").count()

    assert cells == COHORT
    assert page.page.get_attribute("[data-part=round] .mosaic", "aria-label") == f"{COHORT} devices: {COHORT} training"
    assert page.page.locator("[data-part=round] .part").count() == 6


def test_live_updates_and_a_lost_connection_move_nothing_under_the_reader(overview):
    world, page, _ = overview
    world.server.manage("shell", "-v0", "-c", TELL)
    page.wait_for(f"{ROWS}.some(row => row.textContent.includes('Trouble {TROUBLES - 1}'))")
    world.server.kill()
    page.page.wait_for_selector("[data-part=bar]:not([hidden])")
    world.server.start()
    page.wait_until_live()
    page.page.wait_for_selector("[data-part=bar]", state="hidden")

    assert page.page.evaluate("window.shift") <= MOST_SHIFT, page.page.evaluate("window.moved")
    assert page.faults == [] or all("WebSocket" in fault for fault in page.faults)


def test_the_feed_shows_every_event_that_the_log_has_in_its_order(overview):
    world, page, _ = overview
    world.server.manage("shell", "-v0", "-c", TELL)

    newest = world.query("Event.objects.filter(stream='system').latest('seq').seq")
    page.wait_for(f"{ROWS}[0].dataset.key === 'system#{newest}'")
    keys = page.page.evaluate(f"{ROWS}.map(row => row.dataset.key)")

    assert keys[:40] == [f"system#{newest - back}" for back in range(40)]
    assert page.page.evaluate("document.querySelectorAll('*').length") <= MOST_NODES


def test_of_very_many_notices_the_first_errors_stay_and_the_others_are_counted(overview):
    world, page, _ = overview
    world.server.manage("shell", "-v0", "-c", TELL)
    page.wait_for(f"{ROWS}.some(row => row.textContent.includes('Trouble {TROUBLES - 1}'))")

    shown = page.page.locator(".notice [data-field=title]").all_inner_texts()

    # The two warnings that had a place gave it to the next two errors.
    assert shown == ["Trouble 0", "Trouble 10", "Trouble 20"]
    assert page.text("[data-field=more]") == f"{TROUBLES - 5} more: see all events"
    for notice in page.page.locator("[data-dismiss]:visible").all()[::-1]:
        notice.click()
    assert page.page.locator(".notice").count() == 0
    assert not page.page.is_visible("[data-field=more]")
