"""The tabs of a run in a real browser, over a run that goes on: each is live, fits a phone, and breaks no rule."""

import csv
import io

import pytest

from fl.queries.run_tabs import EVENTS_A_PAGE
from tests.browser.conftest import World
from tests.fl.threads import eventually

DEVICES = 3
TABS = ["rounds/", "rounds/1/", "devices/", "config/", "models/", "events/"]
START_A_RUN = """
from django.utils import timezone
from fl.runs import RunPlan, create_run, start_run
plan = RunPlan(name="a run with a rather long name", task="digits", rounds=100000, cohort_size=%d, local_epochs=1)
start_run(run=create_run(plan=plan, created_by=None, now=timezone.now()), now=timezone.now())
"""
MAKE_A_RUN = """
from django.utils import timezone
from fl.runs import RunPlan, create_run
create_run(plan=RunPlan(name="a run", task="digits", rounds=2, cohort_size=2), created_by=None, now=timezone.now())
"""
ANOTHER_HISTORY = """
from django.utils import timezone
from edge.protocol.server import ErrorNotification
from fl import events
from fl.models import Stream
Stream.objects.filter(name="run:1").update(epoch="another")
with events.transaction():
    events.record("run:1", ErrorNotification(code="x", title="said meanwhile", severity="error"), timezone.now())
"""
FIRST_ROW = "document.querySelector('[data-fresh=rounds] > tr')"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server whose run goes on and on, and the codes by which people sign in."""
    made = World(tmp_path_factory.mktemp("running"))
    prepared = made.prepare(DEVICES)
    made.start_fleet(prepared["tokens"])
    made.server.manage("shell", "-v0", "-c", START_A_RUN % DEVICES)
    yield made
    made.close()


@pytest.fixture
def signed_in(running, open_page):
    """Open a page as a viewer, on a tab of the run that is live."""

    def at(tab, **options):
        page = open_page(running.url, **options)
        page.page.goto(f"{running.url}/sign-in/#code={running.prepare()['codes']['viewer']}")
        page.page.wait_for_url(f"{running.url}/")
        page.page.goto(f"{running.url}/runs/1/{tab}")
        page.wait_until_live()
        page.page.evaluate("window.sameDocument = true")
        return page

    return at


def test_an_open_rounds_row_ends_in_place_and_newer_ones_come_above_it_without_a_reload(running, signed_in):
    page = signed_in("rounds/")

    newest = page.wait_for(f"Number({FIRST_ROW}?.dataset.key) || null")
    page.page.focus(f"[data-fresh=rounds] tr[data-key='{newest}'] a")
    page.wait_for(f"document.querySelector('tr[data-key=\"{newest}\"]').dataset.state === 'completed'")
    page.wait_for(f"Number({FIRST_ROW}.dataset.key) > {newest + 1}")

    # At once: while the database is asked, so many rounds may end that the row leaves the page.
    focused = page.page.evaluate("document.activeElement.closest('tr').dataset.key")
    row = page.text(f"tr[data-key='{newest}']")
    (loss,) = running.query(f"[m.metrics['loss'] for m in GlobalModel.objects.filter(version={newest})]")
    assert (f"{loss:.4f}" in row, focused) == (True, str(newest))
    assert page.page.evaluate("window.sameDocument")
    assert page.faults == []


def test_an_open_rounds_devices_end_in_place_and_the_next_round_can_be_reached(signed_in):
    page = signed_in("rounds/")
    newest = page.wait_for(f"Number({FIRST_ROW}?.dataset.key) || null") + 2

    address = f"{page.base}/runs/1/rounds/{newest}/"
    eventually(lambda: page.page.request.get(address).status == 200)
    page.page.goto(address)
    page.wait_until_live()
    page.wait_for("document.querySelector('[data-fresh=facts]').dataset.state === 'completed'")
    page.page.wait_for_selector("text=Next round")

    states = page.page.eval_on_selector_all("[data-fresh=parts] > tr", "rows => rows.map(row => row.dataset.state)")
    assert states == ["accepted"] * DEVICES
    assert page.faults == []


def test_the_map_and_the_models_and_the_events_go_on_by_themselves(signed_in):
    for tab, count in (
        ("devices/", "document.querySelector('[data-cells]')?.dataset.cells.length ?? 0"),
        ("models/", "Number(document.querySelector('[data-fresh=models] > tr')?.dataset.key ?? -1)"),
        ("events/", "Number(document.querySelector('[data-fresh=events] > li')?.dataset.key.split('#')[1] ?? 0)"),
    ):
        page = signed_in(tab)
        page.page.mouse.move(2, 2)

        before = page.page.evaluate(count)
        page.wait_for(f"{count} > {before}")

        assert page.page.evaluate("window.sameDocument"), tab
        assert page.faults == [], tab


_OPEN_THE_NEWEST = """(() => {
  const row = document.querySelector('[data-fresh=events] > li');
  row.querySelector('summary').click();
  return row.dataset.key;
})()"""


def _is_open(key):
    return f"document.querySelector('li[data-key=\"{key}\"] details')?.open"


def test_an_event_that_is_read_stays_open_while_others_come(signed_in):
    page = signed_in("events/")

    # In one turn of the page: a moment later the newest row may have moved from under the pointer.
    first = page.page.evaluate(_OPEN_THE_NEWEST)
    page.page.mouse.move(2, 2)
    page.wait_for(f"document.querySelector('[data-fresh=events] > li').dataset.key !== '{first}'")

    assert page.page.evaluate(_is_open(first))


def test_an_event_that_is_read_stays_below_the_newest_until_it_is_closed(signed_in):
    page = signed_in("events/")
    first = page.page.evaluate(_OPEN_THE_NEWEST)
    page.page.mouse.move(2, 2)

    # A page of the log holds so many: with those that came since, the one that is read is no more among the newest.
    page.wait_for(f"document.querySelectorAll('[data-fresh=events] > li').length === {EVENTS_A_PAGE + 1}")

    assert page.page.evaluate("document.querySelector('[data-fresh=events] > li:last-child').dataset.key") == first
    assert page.page.evaluate(_is_open(first))
    page.page.evaluate(f"document.querySelector('li[data-key=\"{first}\"] details').open = false")
    page.wait_for(f"document.querySelectorAll('[data-fresh=events] > li').length === {EVENTS_A_PAGE}")


def test_under_the_pointer_the_map_says_whose_part_of_which_round_it_is(signed_in):
    page = signed_in("devices/?from=1")
    page.wait_for("(document.querySelector('[data-cells]')?.dataset.cells ?? '').startsWith('a')")
    box = page.page.locator(".map-cells").bounding_box()

    page.page.mouse.move(box["x"] + 5, box["y"] + 32)

    name = page.text(".map-names li >> nth=0")
    page.wait_for(f"document.querySelector('[data-field=reading]').textContent === 'Round 1, {name}: received'")


def test_every_tab_fits_a_phone_and_a_desk_in_light_and_dark_without_faults(signed_in):
    for scheme in ("light", "dark"):
        page = signed_in("rounds/", color_scheme=scheme)
        for tab in TABS:
            page.page.set_viewport_size({"width": 1440, "height": 900})
            page.page.goto(f"{page.base}/runs/1/{tab}")
            page.wait_until_live()
            page.page.set_viewport_size({"width": 320, "height": 640})
            page.wait_for("document.documentElement.scrollWidth <= 320")
        assert page.faults == []
        assert page.foreign == []


def test_a_file_of_rounds_is_streamed_by_the_server_whole(running, signed_in):
    page = signed_in("models/")
    page.wait_for("Number(document.querySelector('[data-fresh=models] > tr')?.dataset.key) > 0")

    answer = page.page.request.get(f"{running.url}/runs/1/rounds/?format=csv")

    rows = list(csv.DictReader(io.StringIO(answer.text())))
    assert [row["round"] for row in rows] == [str(number) for number in range(len(rows))]
    assert rows[1]["state"] == "completed"


def test_where_positions_are_lost_the_page_is_read_until_it_is_answered(world, open_page):
    world.server.manage("shell", "-v0", "-c", MAKE_A_RUN)
    page = open_page(world.url)
    page.page.goto(f"{world.url}/sign-in/#code={world.prepare()['codes']['viewer']}")
    page.page.wait_for_url(f"{world.url}/")
    page.page.goto(f"{world.url}/runs/1/events/")
    page.wait_until_live()
    page.page.evaluate("window.sameDocument = true")
    refused = {"status": 503, "body": "the database is away"}
    page.page.route("**/runs/1/events/", lambda route: route.fulfill(**refused), times=2)

    world.server.kill()
    page.page.wait_for_selector("[data-part=bar]:not([hidden])")
    world.server.manage("shell", "-v0", "-c", ANOTHER_HISTORY)
    world.server.start()

    page.wait_for("document.querySelector('[data-fresh=events]').textContent.includes('said meanwhile')")
    assert page.page.evaluate("window.sameDocument")
    assert sum("503" in fault for fault in page.faults) == 2
