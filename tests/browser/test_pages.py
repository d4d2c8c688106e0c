"""All pages in a real browser: without scripts, on a phone, in the dark, by role; and the three lines."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Error

from tests.browser.conftest import PATIENCE_MS, World
from tests.services.ports import free_port

ROOT = Path(__file__).parent.parent.parent
PATHS = [
    "/",
    "/audit/",
    "/runs/",
    "/runs/1/",
    "/runs/?text=nothing",
    "/runs/new/",
    "/runs/new/?from=1",
    "/runs/1/edit/",
    "/runs/1/stop/",
    "/compare/",
    "/compare/?run=1&run=9",
    "/devices/",
    "/devices/enrol/",
    "/login/",
    "/sign-in/",
]
MAKE_A_RUN = """
from django.utils import timezone
from fl.runs import RunPlan, create_run
plan = RunPlan(name="a run with a rather long name, as people give them", task="digits", rounds=20, cohort_size=3)
create_run(plan=plan, created_by=None, now=timezone.now())
"""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A server with one run that waits to be started; for tests that leave it so."""
    made = World(tmp_path_factory.mktemp("quiet"))
    made.server.manage("shell", "-v0", "-c", MAKE_A_RUN)
    yield made
    made.close()


def signed_in(world, page, role="admin"):
    code = world.prepare()["codes"][role]
    page.page.goto(f"{world.url}/sign-in/#code={code}")
    page.page.wait_for_url(f"{world.url}/")
    return page


def test_without_scripts_a_run_is_started_read_and_paused(world, open_page):
    made = world.prepare(2)
    world.start_fleet(made["tokens"])
    page = open_page(world.url, java_script_enabled=False)
    browser = page.page
    browser.goto(f"{world.url}/sign-in/")
    browser.fill("#code", made["codes"]["operator"])
    browser.click("main [type=submit]")

    while not browser.locator("[data-demo]:not([hidden])").count():
        browser.goto(f"{world.url}/")
    browser.click("[data-demo] button")
    while "v1" not in page.text("[data-part=rounds]"):
        browser.goto(f"{world.url}/")
    browser.click("[data-command=pause] button")

    assert "Paused" in page.text("[data-part=header]")
    assert "paused by operator" in page.text("[data-part=header]")
    assert world.query("[r.state for r in Run.objects.all()]") == ["paused"]
    accuracy = world.query("[m.metrics['accuracy'] for m in GlobalModel.objects.filter(version=1)]")[0]
    assert f"{accuracy * 100:.2f} %" in page.text("[data-part=rounds] tr[data-key='1']")


def test_every_page_fits_a_phone_in_light_and_dark_without_faults(quiet, open_page):
    for scheme in ("light", "dark"):
        page = signed_in(quiet, open_page(quiet.url, color_scheme=scheme, viewport={"width": 320, "height": 640}))
        for path in PATHS:
            page.page.goto(quiet.url + path)
            width = page.page.evaluate("document.documentElement.scrollWidth")
            ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert width <= 320, (path, width)
            assert ground == {"light": "rgb(245, 246, 248)", "dark": "rgb(12, 15, 20)"}[scheme], path
        assert page.faults == []
        assert page.foreign == []


def test_every_page_fits_a_phone_in_german_too(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url, locale="de-DE", viewport={"width": 320, "height": 640}))
    for path in PATHS:
        page.page.goto(quiet.url + path)
        assert page.page.evaluate("document.documentElement.lang") == "de", path
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 320, path
    assert page.faults == []


def test_a_language_is_chosen_at_the_foot_of_the_page_and_remembered_without_scripts(quiet, open_page):
    page = open_page(quiet.url, java_script_enabled=False)
    page.page.goto(f"{quiet.url}/login/")

    page.page.click(".foot button:text('Deutsch')")

    assert page.text("main h1") == "Anmelden"
    page.page.goto(f"{quiet.url}/sign-in/")
    assert page.text("main h1") == "Mit einem Code anmelden"
    assert page.text(".foot [aria-current]") == "Deutsch"


def test_the_switch_changes_light_and_dark_and_is_remembered(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url, color_scheme="light"))

    page.page.click("[data-theme-switch]")
    page.page.reload()

    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(12, 15, 20)"


def test_what_is_drawn_in_another_tab_is_drawn_anew_in_the_colours_chosen_here(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url, color_scheme="light"))
    other = page.page.context.new_page()
    other.goto(quiet.url)
    # Curves are drawn again at this event.
    other.evaluate("addEventListener('shade', () => (window.drawn = document.documentElement.dataset.shade), true)")

    page.page.click("[data-theme-switch]")

    other.wait_for_function("document.documentElement.dataset.shade === 'dark'")
    assert other.evaluate("window.drawn") == "dark"


def test_everything_that_can_be_used_has_a_name_and_is_reached_by_the_keyboard(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url))
    for path in PATHS:
        page.page.goto(quiet.url + path)
        nameless = page.page.evaluate(_NAMELESS)
        assert nameless == [], path
        if path != "/login/":  # there the name is focused at once
            page.page.keyboard.press("Tab")
            assert page.page.evaluate("document.activeElement.className") == "skip", path


_NAMELESS = """() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, progress, [role=img]')]
  .filter(e => e.checkVisibility({ visibilityProperty: true }))
  .filter(e => !(e.innerText?.trim() || e.getAttribute('aria-label') || e.labels?.length))
  .map(e => e.outerHTML)"""


def test_stopping_asks_in_a_dialog_and_says_stopped_only_when_it_is(world, open_page):
    world.server.manage("shell", "-v0", "-c", MAKE_A_RUN)
    page = signed_in(world, open_page(world.url), "operator")
    page.wait_until_live()
    browser = page.page
    assert page.text("[data-part=header] [data-word] >> nth=0") == "Not started"

    browser.click("[data-command=start] button")
    browser.wait_for_selector("[data-command=pause]:not([hidden])")
    browser.click("a[data-command=stop]")
    browser.check("dialog [value=now]")
    browser.click("dialog [type=submit]")
    browser.wait_for_selector("[data-command=stop]", state="hidden")

    assert page.text("[data-part=header] [data-word] >> nth=0") == "Stopped"
    assert "stopped by operator" in page.text("[data-part=header]")
    assert world.query("[r.state for r in Run.objects.all()]") == ["stopped"]
    assert page.faults == []


START_A_LONG_ROUND = """
from django.utils import timezone
from fl import runs
now = timezone.now()
plan = runs.RunPlan(name="long", task="linear", rounds=1, cohort_size=1, local_epochs=5_000_000, deadline_seconds=600)
runs.start_run(run=runs.create_run(plan=plan, created_by=None, now=now), now=now)
"""
_SECONDS_LEFT = """(() => {
  const told = document.querySelector("[data-field=deadline]").textContent;
  const [, minutes, seconds] = /(\\d+):(\\d+) to/.exec(told) ?? [];
  return 60 * Number(minutes) + Number(seconds);
})()"""


def test_a_deadline_is_extended_and_counts_down_anew_once_the_server_said_so(world, open_page):
    world.start_fleet(world.prepare(1)["tokens"], task="linear")
    world.server.manage("shell", "-v0", "-c", START_A_LONG_ROUND)
    page = signed_in(world, open_page(world.url), "operator")
    page.wait_until_live()
    button = "[data-command=extend-deadline]:not([hidden]) button"
    page.page.wait_for_selector(button)
    left = page.wait_for(_SECONDS_LEFT)
    before = world.query("[r.deadline_at.timestamp() for r in Round.objects.all()]")

    page.page.click(button)
    page.wait_for(f"{_SECONDS_LEFT} > {left}")

    assert world.query("[r.deadline_at.timestamp() for r in Round.objects.all()]") == [before[0] + 60]
    page.wait_for("document.querySelector('[data-command=extend-deadline]').innerText === 'Extend by 1 min'")
    page.wait_for("document.querySelector('[data-list=feed]').innerText.includes('deadline extended by 1 min 0 s')")
    assert page.faults == []


def test_a_command_that_was_refused_says_why_and_changes_nothing(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "operator")
    page.wait_until_live()
    quiet.query("[user.groups.clear() for user in auth.models.User.objects.filter(username='operator')]")

    page.page.click("[data-command=start] button")
    page.page.wait_for_selector(".notice")

    assert "not allowed" in page.text(".notice").lower() or "role" in page.text(".notice").lower()
    assert page.text("[data-command=start]") == "Start"
    assert page.text("[data-part=header] [data-word] >> nth=0") == "Not started"
    assert quiet.query("[r.state for r in Run.objects.all()]") == ["pending"]


def test_a_viewer_sees_everything_and_no_controls(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.wait_until_live()

    assert page.page.locator("[data-command], [data-demo], a[href='/runs/new/']").count() == 0
    assert page.faults == []


def test_a_session_that_ends_leads_to_the_login_and_back(world, open_page):
    page = signed_in(world, open_page(world.url), "viewer")
    page.wait_until_live()
    page.page.goto(f"{world.url}/devices/")
    page.wait_until_live()

    page.page.context.clear_cookies()
    world.server.kill()
    world.server.start()
    page.page.wait_for_url("**/login/?next=%2Fdevices%2F")

    assert page.page.input_value("[name=next]") == "/devices/"


def test_a_device_that_asks_to_be_let_in_appears_and_is_approved_live(world, open_page):
    page = signed_in(world, open_page(world.url), "operator")
    browser = page.page
    browser.goto(f"{world.url}/devices/enrol/")
    browser.fill("[name=label]", "clinic")
    browser.click("[data-form=token] [type=submit]")
    command = page.text("#enroll-command")
    page.wait_until_live()

    home = world.folder / "clinic"
    words = command.replace("qflare-edge", f"{sys.executable} -m edge").replace('"', "").split()
    done = subprocess.run([*words, "--home", str(home)], cwd=ROOT, capture_output=True, text=True, check=False)
    browser.wait_for_selector("[data-list=pending] [data-key]")
    browser.click("[data-list=pending] button >> text=Approve")
    browser.wait_for_selector("[data-list=pending] >> text=No device waits.")

    assert done.returncode == 0, done.stderr
    assert world.query("[[d.name, d.state] for d in Device.objects.all()]") == [["clinic", "active"]]
    assert page.faults == []


# ── the three lines ───────────────────────────────────────────────────────────────────────────────────────────────────

SNIPPET = """
const ws = new WebSocket('ws://localhost:8000/api/ws/dashboard');
ws.onmessage = e => { const m = JSON.parse(e.data);
console.log(m.event, m.data); }
"""


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def hear(page, port, wanted):
    """Run the three lines in a page of the server; wait until it has logged an event of each of these names."""
    heard = []
    page.page.on("console", lambda message: heard.append(message.text.split()[0]))
    page.page.evaluate("() => {" + SNIPPET.replace("8000", str(port)) + "}")
    for _ in range(PATIENCE_MS // 100):
        if wanted <= set(heard):
            return heard
        page.page.wait_for_timeout(100)
    raise AssertionError(f"the three lines heard only {sorted(set(heard))}")


@contextmanager
def playing_demo(folder, port):
    """Play `manage.py demo` as a person would, but shorter."""
    command = [sys.executable, "manage.py", "demo", "--devices", "2", "--rounds", "3", "--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QFLARE_")}
    environment = {**inherited, "QFLARE_DATA_DIR": str(folder), "DATABASE_URL": "", "REDIS_URL": ""}
    with (folder / "demo.log").open("w") as log:
        demo = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield demo
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)


def open_when_it_answers(page, url, demo):
    """Open the first page as soon as the demo's server gives it."""
    for _ in range(PATIENCE_MS // 100):
        assert demo.poll() is None, "the demo ended"
        try:
            page.page.goto(url)
            return
        except Error:
            page.page.wait_for_timeout(100)
    raise AssertionError("the demo does not answer")


def test_the_three_lines_work_against_the_demo(tmp_path, open_page):
    port = 8000 if is_free(8000) else free_port()
    with playing_demo(tmp_path, port) as demo:
        page = open_page(f"http://localhost:{port}")
        # Not the first page: that one turns into the run when there is one.
        open_when_it_answers(page, f"{page.base}/runs/", demo)

        heard = hear(page, port, {"welcome", "fl_status_update", "model_aggregation", "training_progress"})

    assert heard[0] == "welcome"
    assert "TypeError" not in " ".join(heard)


def test_on_a_public_dashboard_the_three_lines_work_on_port_8080_and_every_page_is_live(tmp_path, open_page):
    port = 8080 if is_free(8080) else free_port()
    world = World(tmp_path, environment={"QFLARE_PUBLIC_DASHBOARD": "1"}, port=port)
    try:
        page = open_page(f"http://localhost:{port}")
        page.page.goto(page.base)
        heard = hear(page, port, {"welcome", "snapshot"})
        for path in ("/", "/runs/", "/devices/"):
            page.page.goto(page.base + path)
            page.wait_until_live()
    finally:
        world.close()

    assert heard[0] == "welcome"
    assert page.faults == []


def test_a_refusal_that_comes_late_leaves_the_command_that_is_under_way_since(quiet, open_page):
    browser = signed_in(quiet, open_page(quiet.url), "operator").page
    held = []
    browser.route("**/api/v1/runs/1/*/", lambda route: held.append(route))
    browser.goto(f"{quiet.url}/runs/1/")
    browser.wait_for_selector('[data-part=pill][data-state="live"]')

    browser.click("[data-command=start] button")
    browser.wait_for_selector(".notice >> text=The server has not answered")
    browser.click("[data-command=stop]")
    browser.click("#stop-dialog [type=submit]")
    browser.wait_for_selector("[data-command=stop] >> text=Stopping")
    held[0].fulfill(status=409, json={"error": {"message": "refused late"}})
    browser.wait_for_selector(".notice >> text=refused late")

    assert [route.request.url.split("/")[-2] for route in held] == ["start", "stop"]
    assert browser.inner_text("[data-command=stop]").strip() == "Stopping…"
    held[1].fulfill(status=409, json={"error": {"message": "refused as well"}})
    browser.wait_for_selector("[data-command=stop] >> text='Stop'")
