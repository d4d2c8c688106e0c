"""The trash in a real browser: many runs go at once, and other people's pages learn of it."""

import pytest

MAKE_ENDED = """
from django.utils import timezone
from fl.runs import RunPlan, create_run, stop_run
for name in ("first", "second", "third"):
    run = create_run(plan=RunPlan(name=name, task="linear"), created_by=None, now=timezone.now())
    stop_run(run=run, now=timezone.now())
"""
GONE = "document.querySelector(\"[data-run='{}'] [data-field=state]\").textContent.trim() === 'In the trash'"
BARRED = "document.querySelectorAll('[data-run] [name=run]:disabled').length"


@pytest.fixture
def house(world, open_page):
    """A server with three runs that have ended, and a way for people of a role to come to it."""
    codes = world.prepare()["codes"]
    world.server.manage("shell", "-v0", "-c", MAKE_ENDED)

    def come(role):
        page = open_page(world.url)
        page.page.goto(f"{world.url}/sign-in/#code={codes[role]}")
        page.page.wait_for_url(f"{world.url}/")
        return page

    return world, come


def test_runs_are_ticked_asked_about_and_go_and_open_pages_say_so(house):
    world, come = house
    admin, viewer, reader = come("admin"), come("viewer"), come("operator")
    reader.page.goto(f"{world.url}/runs/2/")
    viewer.page.goto(f"{world.url}/runs/")
    for page in (reader, viewer):
        page.wait_until_live()
    viewer.page.check("[data-run='1'] [name=run]")
    browser = admin.page
    browser.goto(f"{world.url}/runs/")
    admin.wait_until_live()

    assert browser.is_disabled("[data-throw]")
    for number in (1, 2):
        browser.check(f"[data-run='{number}'] [name=run]")
    browser.click("[data-throw]")
    browser.wait_for_url("**/runs/trash/move/?run=*&run=*")
    assert admin.text("h1") == "Move 2 runs to the trash?"
    browser.click("main form [type=submit]")
    browser.wait_for_url(f"{world.url}/runs/")

    assert "2 runs are in the trash now." in admin.text("main")
    assert browser.locator("[data-run]").count() == 1
    for number in (1, 2):
        viewer.wait_for(GONE.format(number))
    assert not viewer.page.is_checked("[data-run='1'] [name=run]")
    assert viewer.page.evaluate(BARRED) == 2
    assert viewer.page.locator("[data-throw]").count() == 0
    reader.page.wait_for_selector("[data-part=notices] >> text=second was moved to the trash")

    browser.goto(f"{world.url}/runs/trash/")
    browser.click("main button:has-text('Restore')")
    browser.wait_for_selector("main >> text=is restored.")
    viewer.wait_for(f"{BARRED} === 1")
    for page in (admin, viewer, reader):
        assert page.faults == []
        assert page.foreign == []
