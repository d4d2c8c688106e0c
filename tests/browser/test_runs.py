"""The list of runs, Compare and New run in a real browser: chosen, laid over each other, watched while they grow."""

import re

import pytest

from tests.browser.conftest import PATIENCE_MS

DEVICES = 2
MAKE_RUNS = """
from dataclasses import replace
from django.utils import timezone
from fl.runs import RunPlan, create_run, start_run
now = timezone.now()
plan = RunPlan(name="first", task="linear", rounds=3, cohort_size=2, cohort_wait_seconds=1)
for name, changes in (("first", {}), ("second", {"learning_rate": 0.2})):
    start_run(run=create_run(plan=replace(plan, name=name, **changes), created_by=None, now=now), now=now)
"""


@pytest.fixture
def at_work(world, open_page):
    """A server with two devices and two runs that are under way, and an operator who is signed in."""
    made = world.prepare(DEVICES)
    world.start_fleet(made["tokens"], task="linear")
    page = open_page(world.url)
    page.page.goto(f"{world.url}/sign-in/#code={made['codes']['operator']}")
    page.page.wait_for_url(f"{world.url}/")
    return world, page


def test_two_runs_are_chosen_compared_and_both_curves_grow(at_work):
    world, page = at_work
    browser = page.page
    browser.goto(f"{world.url}/runs/")
    page.wait_until_live()

    world.server.manage("shell", "-v0", "-c", MAKE_RUNS)
    browser.wait_for_selector("[data-field=news]:not([hidden])")
    page.wait_for("document.querySelector('[data-field=news]').textContent.trim() === '2 new runs: show'")
    browser.click("[data-field=news] a")
    browser.wait_for_selector("[data-run='2']")
    page.wait_until_live()
    states = "[...document.querySelectorAll('[data-run] [data-field=state]')]"
    page.wait_for(f"{states}.every(e => e.textContent.trim() === 'Completed')")
    page.wait_for("[...document.querySelectorAll('[data-field=rounds]')].every(e => e.textContent === '3 of 3')")
    _compare_rows(world, page)

    assert browser.is_disabled("[data-go]")
    for number in (1, 2):
        browser.check(f"[data-run='{number}'] [name=run]")
    assert page.text("[data-go]") == "Compare 2 runs"
    assert re.search(r"run=\d&run=\d$", browser.url)
    browser.click("[data-go]")
    browser.wait_for_url("**/compare/?run=*&run=*")

    browser.wait_for_selector("[data-plot=accuracy] canvas")
    page.wait_for("document.querySelector('[data-part=compare]').dataset.points === '8'")
    for number in (1, 2):
        assert page.page.evaluate(_DRAWN, number) > 50, number
    assert _colour(page, 1) != _colour(page, 2)
    assert browser.inner_text("tr.differs th") == "Learning rate"
    assert page.faults == []
    assert page.foreign == []


_DRAWN = """number => {
  const swatch = document.querySelector(`[data-legend="${number}"] .swatch`);
  const [r, g, b] = getComputedStyle(swatch).stroke.match(/\\d+/g).map(Number);
  const canvas = document.querySelector("[data-plot=loss] canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] > 200) count += 1;
  }
  return count;
}"""


def _colour(page, number):
    return page.page.evaluate(f"getComputedStyle(document.querySelector('[data-legend=\"{number}\"] .swatch')).stroke")


def _compare_rows(world, page):
    rows = world.query(
        "[[r.pk, r.best_model.metrics['accuracy'], r.models.latest('version').metrics['accuracy']]"
        " for r in Run.objects.select_related('best_model')]"
    )
    for number, best, last in rows:
        row = f"[data-run='{number}']"
        assert page.text(f"{row} [data-field=best]") == f"{best * 100:.2f} %"
        assert page.text(f"{row} [data-field=last]") == f"{last * 100:.2f} %"


def test_a_running_runs_curve_grows_in_the_page(at_work):
    world, page = at_work
    browser = page.page
    code = MAKE_RUNS.replace("rounds=3", "rounds=200")
    world.server.manage("shell", "-v0", "-c", code)
    browser.goto(f"{world.url}/compare/?run=1&run=r-0002&x=time&run=77")
    page.wait_until_live()
    points = "Number(document.querySelector('[data-part=compare]').dataset.points)"

    before = page.wait_for(f"{points} > 4 && {points}")
    after = page.wait_for(f"{points} > {before + 6} && {points}")

    assert after > before
    assert "there is no run “77”" in page.text("main")
    assert "–" not in page.text("[data-run='1'] [data-field=last_loss]")
    browser.focus("[data-plot=accuracy]")
    browser.keyboard.press("End")
    assert re.search(r"After .*: r-0001 .*loss [\d.]+ \(round \d+\); r-0002 ", page.text("[data-field=reading]"))
    assert page.faults == []


def test_the_form_of_a_new_run_tells_live_who_qualifies(world, open_page):
    made = world.prepare(DEVICES)
    page = open_page(world.url)
    browser = page.page
    browser.goto(f"{world.url}/sign-in/#code={made['codes']['operator']}")
    browser.wait_for_url(f"{world.url}/")
    browser.goto(f"{world.url}/runs/new/")
    page.wait_until_live()
    browser.select_option("[name=task]", "linear")
    browser.wait_for_selector("[data-outlook=wait]", timeout=PATIENCE_MS)

    world.start_fleet(made["tokens"], task="linear")

    browser.wait_for_selector("[data-outlook=whole]", timeout=PATIENCE_MS)
    browser.fill("[name=cohort_size]", "3")
    browser.wait_for_selector("[data-outlook=wait]")
    browser.fill("[name=quorum]", "2")
    browser.wait_for_selector("[data-outlook=smaller]")
    assert browser.is_hidden("[name=fedprox-mu]")
    browser.check("#strategy-fedprox")
    assert browser.is_visible("[name=fedprox-mu]")
    assert browser.get_attribute("[name=batch_size]", "placeholder") == "16"
    browser.fill("[name=name]", "winter")
    browser.click("main [type=submit] >> text=Create the run")
    browser.wait_for_url("**/runs/1/")
    assert world.query("[[r.name, r.strategy, r.quorum] for r in Run.objects.all()]") == [["winter", "fedprox", 2]]
    assert page.faults == []
