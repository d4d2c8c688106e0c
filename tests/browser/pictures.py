"""The documents' pictures, taken of real runs by real devices; `make pictures` takes them anew, and no check does.

The overview's is taken by test_overview.py, with QFLARE_SCREENSHOTS=1.
"""

import pytest

from tests.browser.conftest import ROOT

PICTURES = ROOT / "docs/images"
DEVICES, COHORT = 40, 12
LARGEST = 250_000
"""Bytes of a picture."""
MAKE_RUNS = f"""
from dataclasses import replace
from django.contrib.auth.models import User
from django.utils import timezone
from fl import devices, runs
from fl.models import Device
now = timezone.now()
operator = User.objects.get(username="operator")
plan = runs.RunPlan(
    name="digits, averaged", task="digits", rounds=40, cohort_size={COHORT}, quorum=8, local_epochs=6, seed=7,
    tags=("digits", "uneven"),
)
proximal = {{"name": "digits, held near", "strategy": "fedprox", "strategy_config": {{"mu": 0.1}}}}
for changes in ({{}}, proximal, {{"name": "digits, with momentum on the server", "strategy": "fedavgm", "rounds": 60}}):
    runs.create_run(plan=replace(plan, **changes), created_by=operator, now=now)
for device, tags in zip(Device.objects.order_by("name"), (["north"], ["north", "gpu"], ["ward-7"])):
    devices.tag_device(device=device, tags=tags, now=now, by=operator)
"""
START = """
from django.utils import timezone
from fl import runs
from fl.models import Run
for number in {numbers}:
    runs.start_run(run=Run.objects.get(pk=number), now=timezone.now())
"""
SUSPEND = """
from django.utils import timezone
from fl import devices
from fl.models import Assignment
part = Assignment.objects.select_related("device").filter(round__run=3).latest("pk")
devices.suspend(device=part.device, reason="its disk is full", now=timezone.now(), by=None)
"""
POINTS = "Number(document.querySelector('[data-part=curve]')?.dataset.points ?? 0)"
BARS = "[...document.querySelectorAll('.part progress')].map((bar) => bar.value)"
AT_WORK = f"{BARS}.some((value) => value === 1) && {BARS}.some((value) => value > 0 && value < 1)"


@pytest.fixture
def demo(world, open_page):
    """A server with many devices and three runs that wait, and an operator who is signed in."""
    made = world.prepare(DEVICES)
    world.start_fleet(made["tokens"], further=["--partition", f"dirichlet:1:0/{DEVICES}:7"])
    page = open_page(world.url, color_scheme="light")
    page.page.goto(f"{world.url}/sign-in/#code={made['codes']['operator']}")
    page.page.wait_for_url(f"{world.url}/")
    page.wait_for(f"document.querySelector('[data-field=online]').textContent === '{DEVICES}'")
    world.server.manage("shell", "-v0", "-c", MAKE_RUNS)
    return world, page, page.page.context.storage_state()


def start(world, *numbers):
    world.server.manage("shell", "-v0", "-c", START.format(numbers=numbers))


def take(page, name):
    """Take a picture of what a page shows, small enough for a document."""
    page.page.mouse.move(2, 2)
    page.page.screenshot(path=PICTURES / name)
    assert (PICTURES / name).stat().st_size < LARGEST, name


def take_at_work(page, name):
    """Take it while some devices of the round are done and others are not."""
    for _ in range(60):
        page.wait_for(AT_WORK)
        take(page, name)
        if page.page.evaluate(AT_WORK):
            return
    raise AssertionError(f"never at work: {name}")


def test_the_pictures_are_taken(demo, open_page):
    world, page, session = demo
    start(world, 1, 2)
    page.page.goto(f"{world.url}/compare/?run=1&run=2")
    states = "[...document.querySelectorAll('[data-part=bests] [data-field=state]')].map((e) => e.textContent.trim())"
    page.wait_for(f"{states}.join() === 'Completed,Completed'")

    start(world, 3)
    page.page.goto(f"{world.url}/runs/3/?base=1")
    page.wait_for(f"{POINTS} > 8")
    world.server.manage("shell", "-v0", "-c", SUSPEND)
    page.wait_for(f"{POINTS} > 15")
    page.page.click("[data-command=pause] button")
    page.page.wait_for_selector("[data-command=resume]:not([hidden])")
    page.wait_for("document.querySelector('[data-field=phases]').dataset.state === 'completed'")
    page.page.click("[data-command=resume] button")
    page.wait_for(f"{POINTS} > 28")

    dark = open_page(world.url, color_scheme="dark", storage_state=session)
    dark.page.goto(f"{world.url}/runs/3/?base=1")
    dark.page.wait_for_selector("[data-base=loss]:not([hidden])")
    take_at_work(dark, "run-dark.png")
    phone = {"width": 390, "height": 844}
    small = open_page(world.url, color_scheme="light", storage_state=session, viewport=phone)
    small.page.goto(f"{world.url}/runs/3/")
    small.page.wait_for_selector("[data-part=curve] canvas")
    take(small, "phone.png")
    page.page.goto(f"{world.url}/devices/")
    page.wait_until_live()
    take(page, "devices.png")
    page.page.goto(f"{world.url}/runs/3/devices/")
    page.wait_until_live()
    take(page, "participation.png")
    page.page.goto(f"{world.url}/compare/?run=1&run=2&run=3")
    page.wait_for("document.querySelector('[data-part=compare]').dataset.points > 100")
    take(page, "compare.png")
