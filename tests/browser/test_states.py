"""Every state of a run in light and dark, on a desk and on a phone: it keeps nobody out and is never too wide."""

import json
import signal

import pytest

from tests.browser.conftest import World
from tests.browser.measures import SIZES, too_wide_at, violations

STATES = ("live", "waiting", "paused", "failed", "completed", "offline")
PREPARE_RUNS = """
import json
from dataclasses import replace
from django.utils import timezone
from fl import runs
from fl.models import Device

now = timezone.now()
plan = runs.RunPlan(name="", task="linear", cohort_size=3, rounds=2)
def start(**changes):
    run = runs.create_run(plan=replace(plan, **changes), created_by=None, now=now)
    runs.start_run(run=run, now=now)
    return run
made = {
    "completed": start(name="a finished run"),
    "failed": start(name="a run that fails", local_epochs=5000000, deadline_seconds=0.2, rounds=9),
    "waiting": start(name="a run that waits for more devices", cohort_size=9, quorum=9),
    "paused": start(name="a run that is paused", rounds=500),
    "live": start(name="a run that goes on with a rather long name, as people give them", rounds=100000),
}
print(json.dumps({name: run.pk for name, run in made.items()}))
"""
WAIT_UNTIL_ALL_ARE_AS_WANTED = """
import time
from django.utils import timezone
from fl import runs
from fl.models import GlobalModel, Round, Run
paused = Run.objects.get(name="a run that is paused")
while not GlobalModel.objects.filter(run=paused, version__gte=2, published_at__isnull=False).exists():
    time.sleep(0.1)
runs.pause_run(run=paused, now=timezone.now())
while Run.objects.filter(name__in=["a finished run", "a run that fails"], ended_at__isnull=True).exists():
    time.sleep(0.1)
while not Round.objects.filter(run__name__startswith="a run that goes on", state="training").exists():
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A server with three devices and a run in each state, and the code of an operator."""
    made = World(tmp_path_factory.mktemp("states"))
    people = made.prepare(3)
    fleet = made.start_fleet(people["tokens"], task="linear")
    runs = json.loads(made.server.manage("shell", "-v0", "-c", PREPARE_RUNS).strip().splitlines()[-1])
    made.server.manage("shell", "-v0", "-c", WAIT_UNTIL_ALL_ARE_AS_WANTED)
    # From here on nothing moves: the round in training goes on until its deadline, which is far.
    fleet.send_signal(signal.SIGSTOP)
    yield made, people["codes"]["operator"], runs
    fleet.kill()
    made.close()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A server with nothing on it."""
    made = World(tmp_path_factory.mktemp("bare"))
    yield made, made.prepare()["codes"]["operator"]
    made.close()


@pytest.fixture(scope="module")
def visitor(chromium):
    """Open pages as an operator who signed in once at each server."""
    sessions = {}

    def visit(world, code, path, scheme, size):
        if world.url not in sessions:
            context = chromium.new_context()
            page = context.new_page()
            page.goto(f"{world.url}/sign-in/#code={code}")
            page.wait_for_url(f"{world.url}/")
            sessions[world.url] = context.storage_state()
            context.close()
        options = {"viewport": SIZES[size], "color_scheme": scheme, "reduced_motion": "reduce"}
        page = chromium.new_context(storage_state=sessions[world.url], **options).new_page()
        page.goto(world.url + path)
        page.wait_for_selector('[data-part=pill][data-state="live"]')
        return page

    return visit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_a_run_in_each_state_keeps_nobody_out(house, visitor, state, scheme, size):
    world, code, runs = house
    page = visitor(world, code, f"/runs/{runs.get(state, runs['live'])}/", scheme, size)
    if state == "offline":
        page.context.set_offline(True)
        page.wait_for_selector("[data-part=bar]:not([hidden])")

    found = violations(page)

    assert found == []
    assert too_wide_at(page, 320) == []
    page.context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_page_of_a_new_server_keeps_nobody_out(bare, visitor, scheme, size):
    world, code = bare
    page = visitor(world, code, "/", scheme, size)

    found = violations(page)

    assert found == []
    assert too_wide_at(page, 320) == []
    page.context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_before_signing_in_keep_nobody_out(bare, chromium, scheme, size):
    world, _ = bare
    page = chromium.new_context(viewport=SIZES[size], color_scheme=scheme).new_page()

    found = {}
    for path in ("/login/", "/sign-in/", "/nothing/"):
        page.goto(world.url + path)
        found[path] = violations(page) + too_wide_at(page, 320)
        page.set_viewport_size(SIZES[size])

    assert {path: lines for path, lines in found.items() if lines} == {}
    page.context.close()


def test_the_keyboard_reaches_every_control_of_a_run_and_shows_where_it_is(house, visitor):
    world, code, runs = house
    page = visitor(world, code, f"/runs/{runs['paused']}/", "light", "desktop")

    reached, unseen = [], []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        at = page.evaluate(_FOCUSED)
        if at["name"] in ("BODY", *reached[:1]):  # once around
            break
        reached.append(at["name"])
        unseen += [] if at["outline"] else [at]

    assert unseen == []
    assert set(page.evaluate(_USABLE)) - set(reached) == set()


MOST_TABS = 300
_NAME = "(e) => (e.dataset.part || e.getAttribute('aria-label') || e.innerText?.trim() || e.name || e.tagName)"
_USABLE = f"""() => {{
  const kinds = 'a[href], button, input:not([type=hidden]), select, summary, [tabindex="0"]';
  return [...document.querySelectorAll(kinds)]
    .filter((e) => e.checkVisibility({{ visibilityProperty: true }}) && !e.closest('dialog'))
    .filter((e) => e.type !== 'radio' || e.checked)
    .map({_NAME});
}}"""
_FOCUSED = f"""() => {{
  const e = document.activeElement;
  const drawn = e.matches('.segments input') ? e.nextElementSibling : e;
  const style = getComputedStyle(drawn);
  return {{ name: e === document.body ? 'BODY' : ({_NAME})(e), outline: style.outlineStyle !== 'none' }};
}}"""
