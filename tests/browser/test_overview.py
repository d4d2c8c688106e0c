"""The overview in a real browser, over a real server and real devices: a run from its first click to a paused curve."""

import re
from pathlib import Path

import pytest

DEVICES = 5
PICTURE = Path(__file__).parent.parent.parent / "docs/images/overview.png"


@pytest.fixture
def demo(world, open_page):
    """A server with five devices, and an operator who is signed in by a link and sees the guide."""
    made = world.prepare(DEVICES)
    world.start_fleet(made["tokens"])
    page = open_page(world.url)
    page.page.goto(f"{world.url}/sign-in/#code={made['codes']['operator']}")
    page.page.wait_for_url(f"{world.url}/")
    page.wait_until_live()
    return world, page


def test_a_run_is_started_watched_and_paused_in_the_page(demo, screenshots_wanted):
    world, page = demo
    browser = page.page
    assert "Your server is ready" in page.text("main")

    browser.wait_for_selector("[data-demo]:not([hidden])")
    page.wait_for(f"document.querySelector('[data-field=online]').textContent === '{DEVICES}'")
    browser.click("[data-demo] button")
    browser.wait_for_selector("[data-part=curve] canvas")
    page.wait_until_live()
    points = [_wait_for_more_points(page, 1)]
    drawings = [browser.evaluate(_DRAWING)]
    points.append(_wait_for_more_points(page, points[0]))
    drawings.append(browser.evaluate(_DRAWING))
    _wait_until_a_bar_moves(page)
    if screenshots_wanted:
        _take_picture(page)
    browser.click("[data-command=pause] button")

    browser.wait_for_selector("form[data-command=resume]:not([hidden])")
    page.wait_for("document.querySelector('[data-part=header] [data-word]').textContent === 'Paused'")
    browser.wait_for_selector('[data-field=phases][data-state="completed"]')
    page.wait_for(_CURVE_HAS_ALL_ROUNDS)
    assert points[0] < points[1]
    assert drawings[0] != drawings[1]
    _compare_with_the_database(world, page)
    assert page.faults == []
    assert page.foreign == []


_DRAWING = "document.querySelector('[data-plot=accuracy] canvas').toDataURL()"
_CURVE_HAS_ALL_ROUNDS = """() => {
  const shown = [...document.querySelectorAll('[data-part=rounds] [data-field=model] a')].length;
  return shown === Number(document.querySelector('[data-part=curve]').dataset.points);
}"""


def _wait_for_more_points(page, known):
    """Wait until the curve has more points than so many; return how many it has."""
    points = "Number(document.querySelector('[data-part=curve]')?.dataset.points)"
    return page.wait_for(f"{points} > {known} && {points}")


def _wait_until_a_bar_moves(page):
    bars = "[...document.querySelectorAll('.part progress')]"
    page.wait_for(f"{bars}.some(bar => bar.value > 0 && bar.value < 1)")


def _take_picture(page):
    """Take the documents' picture of the overview, with some devices at work and some done."""
    page.page.goto(page.base)
    _wait_for_more_points(page, 9)
    bars = "[...document.querySelectorAll('.part progress')].map(bar => bar.value)"
    at_work = f"{bars}.some(value => value === 1) && {bars}.some(value => value < 1)"
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(30):
        page.wait_for(at_work)
        page.page.screenshot(path=PICTURE)
        if page.page.evaluate(at_work):
            break


def _compare_with_the_database(world, page):
    rows = world.query(
        "[[m.version, m.metrics['accuracy'], m.metrics['loss'], m.run.best_model_id == m.pk] "
        "for m in GlobalModel.objects.filter(published_at__isnull=False).select_related('run').order_by('-version')]"
    )
    run = world.query("[[r.state, r.name, r.task, r.rounds] for r in Run.objects.all()]")
    rounds = world.query("Round.objects.filter(state='completed').count()")
    shown = [
        [
            cell.inner_text()
            for cell in row.query_selector_all("[data-field=accuracy], [data-field=loss], [data-field=model]")
        ]
        for row in page.page.query_selector_all("[data-part=rounds] tbody tr")
        if row.query_selector("a")
    ]
    assert shown == [
        [f"{accuracy * 100:.2f} %", f"{loss:.4f}", f"v{version} best" if best else f"v{version}"]
        for version, accuracy, loss, best in rows
    ]
    assert run == [["paused", "demo", "digits", 20]]
    newest = rows[0]
    assert page.text("[data-part=figures] [data-field=accuracy]") == f"{newest[1] * 100:.2f} %"
    assert page.text("[data-part=figures] [data-field=loss]") == f"{newest[2]:.4f}"
    assert page.text("[data-part=figures] [data-field=best]") == f"v{next(row[0] for row in rows if row[3])}"
    assert page.text("[data-part=ribbon] [data-field=position]") == f"Round {rounds} of 20"
    completed = page.page.get_attribute("[data-part=ribbon] svg", "aria-label")
    assert completed == f"{rounds} of 20 rounds completed, 0 failed"
    assert page.page.get_attribute("[data-part=ribbon] .complete", "d").count("M") == rounds
    updates = world.query(f"Update.objects.filter(state='accepted', assignment__round__number={rounds}).count()")
    assert page.text("[data-part=round] [data-field=received]") == f"{updates} of {DEVICES}"


def test_the_page_catches_up_without_a_reload_when_the_server_comes_back(demo):
    world, page = demo
    browser = page.page
    browser.click("[data-demo] button")
    browser.wait_for_selector("[data-part=curve]")
    page.wait_until_live()
    _wait_for_more_points(page, 1)
    browser.evaluate("window.sameDocument = true")

    world.server.kill()
    browser.wait_for_selector("[data-part=bar]:not([hidden])")
    assert re.match(r"Reconnecting in|Connecting", page.text("[data-part=pill]"))
    assert "Data from" in page.text("[data-part=bar]")
    before = browser.evaluate("document.querySelector('[data-part=curve]').dataset.points")
    world.server.start()
    browser.wait_for_selector('[data-part=pill][data-state="live"]')

    _wait_for_more_points(page, before)
    page.wait_for("document.querySelector('[data-part=header] [data-word]').textContent === 'Completed'")
    page.wait_for(_CURVE_HAS_ALL_ROUNDS)
    numbers = [int(cell) for cell in browser.locator("[data-part=rounds] [data-field=number]").all_inner_texts()]
    assert numbers == list(range(20, -1, -1))
    assert browser.evaluate("window.sameDocument")
    _compare_ends(world, page)


def _compare_ends(world, page):
    (accuracy,) = world.query("[m.metrics['accuracy'] for m in GlobalModel.objects.filter(version=20)]")
    assert page.text("[data-part=figures] [data-field=accuracy]") == f"{accuracy * 100:.2f} %"
