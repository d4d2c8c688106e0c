"""What every page has: the palette, keys, folded navigation, and choices that stand in the address."""

import json

import pytest

from tests.browser.conftest import World

MAKE_RUNS = """
from dataclasses import replace
from django.utils import timezone
from fl import runs
now = timezone.now()
plan = runs.RunPlan(name="the first", task="linear", cohort_size=2, rounds=4)
for changes in ({}, {"name": "the second", "rounds": 100000}):
    run = runs.create_run(plan=replace(plan, **changes), created_by=None, now=now)
    runs.start_run(run=run, now=now)
"""


@pytest.fixture(scope="module")
def lively(tmp_path_factory):
    """A server with two devices that train two runs, one after the other, and the codes that sign people in."""
    world = World(tmp_path_factory.mktemp("lively"))
    people = world.prepare(2)
    world.start_fleet(people["tokens"], task="linear")
    world.server.manage("shell", "-v0", "-c", MAKE_RUNS)
    world.codes = people["codes"]
    yield world
    world.close()


@pytest.fixture(scope="module")
def signed_in(lively, chromium):
    """What a browser keeps of an operator and of a viewer who signed in."""

    def state_of(role):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{lively.url}/sign-in/#code={lively.codes[role]}")
        page.wait_for_url(f"{lively.url}/")
        state = context.storage_state()
        context.close()
        return state

    return {role: state_of(role) for role in ("operator", "viewer")}


@pytest.fixture
def operator(lively, signed_in, open_page):
    page = open_page(lively.url, storage_state=signed_in["operator"])
    page.page.goto(lively.url)
    return page


def open_second(lively, page, query=""):
    """Open the run that goes on for long."""
    page.page.goto(f"{lively.url}/runs/2/{query}")
    page.wait_until_live()
    page.page.wait_for_selector("[data-part=curve] canvas")


def test_the_palette_finds_runs_and_goes_there(lively, operator):
    operator.page.goto(f"{lively.url}/devices/")
    operator.wait_until_live()

    operator.page.keyboard.press("/")
    operator.page.keyboard.type("the first")
    operator.page.wait_for_selector("[role=option]:has-text('the first')")
    operator.page.keyboard.press("Enter")

    operator.page.wait_for_url("**/runs/1/")


def test_keys_go_to_pages_and_can_be_switched_off(lively, operator):
    operator.wait_until_live()
    operator.page.keyboard.press("g")
    operator.page.keyboard.press("r")
    operator.page.wait_for_url("**/runs/")
    operator.wait_until_live()

    operator.page.keyboard.press("?")
    operator.page.wait_for_selector("[data-part=keys][open]")
    operator.page.uncheck("[data-part=keys] [name=keys]")
    operator.page.keyboard.press("Escape")
    operator.page.keyboard.press("g")
    operator.page.keyboard.press("d")
    operator.page.keyboard.press("?")

    assert operator.page.url.endswith("/runs/")
    assert operator.page.locator("dialog[open]").count() == 0


def test_a_folded_navigation_stays_folded(lively, operator):
    operator.page.click("[data-fold-side]")
    operator.page.goto(f"{lively.url}/runs/")

    assert operator.page.get_attribute("[data-fold-side]", "aria-expanded") == "false"
    assert operator.page.locator(".side").bounding_box()["width"] < 80


def test_what_is_chosen_for_the_curve_stands_in_the_address_and_opens_again(lively, operator):
    open_second(lively, operator)

    operator.page.check("[name=x][value=time]", force=True)
    operator.page.check("[name=log]")
    operator.page.uncheck("[name=spread]")
    operator.page.select_option("[name=base]", "1")
    operator.page.wait_for_selector("[data-base=loss]:not([hidden])")
    address = operator.page.url
    operator.page.goto(address)
    operator.wait_until_live()

    assert all(choice in address for choice in ("x=time", "log=1", "spread=0", "base=1")), address
    assert operator.page.is_checked("[name=x][value=time]")
    assert operator.page.is_checked("[name=log]")
    assert not operator.page.is_checked("[name=spread]")
    operator.page.wait_for_selector("[data-base=loss]:not([hidden])")
    assert "r-0001" in operator.text("[data-field=base_loss]")
    assert operator.faults == []


def test_a_zoom_stays_while_rounds_come_in(lively, operator):
    open_second(lively, operator)
    operator.wait_for("Number(document.querySelector('[data-part=curve]').dataset.points) > 8")
    operator.page.click("[data-closer]")
    zoomed = operator.page.url
    known = operator.page.get_attribute("[data-part=curve]", "data-points")

    operator.wait_for(f"Number(document.querySelector('[data-part=curve]').dataset.points) > {known} + 2")

    assert "from=" in zoomed
    assert operator.page.url == zoomed
    assert operator.page.is_visible("[data-reset]")


def test_the_curve_is_saved_as_an_image_of_twice_the_size(lively, operator):
    open_second(lively, operator)
    operator.wait_for("Number(document.querySelector('[data-part=curve]').dataset.points) > 2")

    with operator.page.expect_download() as download:
        operator.page.click("[data-image]")

    file = download.value.path().read_bytes()
    assert download.value.suggested_filename == "run-2-curve.png"
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(file[16:20], "big") == 1800
    assert operator.faults == []


def test_the_feed_is_narrowed_and_the_address_says_so(lively, operator):
    open_second(lively, operator)
    before = operator.page.locator("[data-list=feed] li").count()

    operator.page.click("[data-severity=errors]")

    assert before > 0
    assert operator.page.locator("[data-list=feed] li").count() == 0
    assert "severity=errors" in operator.page.url
    operator.page.reload()
    assert operator.page.get_attribute("[data-severity=errors]", "aria-current") == "true"


def test_the_pill_says_how_long_the_way_to_the_server_and_back_takes(lively, operator):
    open_second(lively, operator)

    operator.wait_for("/^\\d+ ms$/.test(document.querySelector('[data-field=way]').textContent)")

    assert "There and back in" in operator.page.get_attribute("[data-part=pill]", "title")


def test_two_viewers_see_the_same(lively, operator, signed_in, open_page):
    other = open_page(lively.url, storage_state=signed_in["viewer"])
    for page in (operator, other):
        open_second(lively, page)

    operator.page.click("[data-command=pause] button")
    for page in (operator, other):
        page.wait_for("document.querySelector('[data-part=header] [data-word]').textContent === 'Paused'")
        page.page.wait_for_selector('[data-field=phases][data-state="completed"]')

    shown = [json.dumps(page.page.eval_on_selector_all(ROUND_CELLS, TEXTS)) for page in (operator, other)]
    operator.page.click("[data-command=resume] button")

    assert shown[0] == shown[1]
    assert len(json.loads(shown[0])) > 10


ROUND_CELLS = "[data-part=rounds] td, [data-part=figures] .value"
TEXTS = "cells => cells.map(cell => cell.innerText)"
