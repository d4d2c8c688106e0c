"""Events, inspector, health and documents in a real browser: live, on a phone, in the dark, and by the keyboard."""

import json

import pytest

from tests.browser.conftest import World
from tests.browser.test_pages import _NAMELESS, signed_in

PATHS = ["/events/", "/events/?raw=1", "/health/", "/inspector/", "/docs/", "/docs/deployment/", "/docs/asyncapi/"]
RECORD = """
from django.utils import timezone
from edge.protocol.server import ErrorNotification
from fl import events
for title in {titles!r}:
    with events.transaction():
        events.record("system", ErrorNotification(code="x", title=title, severity={severity!r}), timezone.now())
"""
ONLINE = """
from django.utils import timezone
from edge.protocol.server import DeviceStatus
from fl import events
status = DeviceStatus(device_id=4711, name={name!r}, state="active", presence="online")
with events.transaction():
    events.record("system", status, timezone.now())
"""
ANOTHER_PROCESS = """
from datetime import timedelta
from django.utils import timezone
from realtime.models import ServerProcess
now = timezone.now()
until = now + timedelta(hours=1)
ServerProcess.objects.create(
    instance="another", started_at=now, heard_at=now, lease_until=until, connections={"admin": 4711}
)
"""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A server on which something has happened."""
    made = World(tmp_path_factory.mktemp("log-pages"))
    record(
        made, ["the first", "an event with a rather long title, as programs give them when they have much to say " * 3]
    )
    yield made
    made.close()


def record(world, titles, severity="error"):
    world.server.manage("shell", "-v0", "-c", RECORD.format(titles=titles, severity=severity))


def say_online(world, name):
    world.server.manage("shell", "-v0", "-c", ONLINE.format(name=name))


def say_that_another_process_lives(world):
    world.server.manage("shell", "-v0", "-c", ANOTHER_PROCESS)


def rename_table(world, name, other):
    """Take from the server what it measures by, or give it back."""
    code = f"from django.db import connection\nconnection.cursor().execute('ALTER TABLE {name} RENAME TO {other}')"
    world.server.manage("shell", "-v0", "-c", code)


def first_titles(page, count):
    return page.page.locator("[data-list=events] > li > div > p:first-child").all_inner_texts()[:count]


def test_every_page_fits_a_phone_in_light_and_dark_without_faults(quiet, open_page):
    for scheme in ("light", "dark"):
        page = signed_in(quiet, open_page(quiet.url, color_scheme=scheme, viewport={"width": 320, "height": 640}))
        for path in PATHS:
            page.page.goto(quiet.url + path)
            page.wait_until_live()
            width = page.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 320, f"{path} is {width} px wide"
            assert page.page.evaluate(_NAMELESS) == [], path
        assert page.faults == []
        assert page.foreign == []


def test_new_events_are_announced_and_shown_when_they_are_asked_for(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/events/?severity=errors")
    page.wait_until_live()
    before = first_titles(page, 1)
    page.page.click("[data-list=events] > li:first-child summary")

    record(quiet, ["no error"], severity="info")
    record(quiet, ["a new one", "another new one"])
    page.wait_for("document.querySelector('[data-show]').textContent === '2 new events: show'")
    still = first_titles(page, 1)
    page.page.click("[data-show]")
    page.wait_for("document.querySelectorAll('[data-list=events] > li').length >= 4")

    assert still == before
    assert first_titles(page, 3) == ["another new one", "a new one", *before]
    assert page.page.locator("[data-list=events] details[open]").count() == 1
    page.page.wait_for_selector("[data-show]", state="hidden")
    assert page.faults == []


def test_of_more_new_events_than_a_page_has_the_others_are_on_the_older_one(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/events/?severity=errors")
    page.wait_until_live()
    titles = [f"number {number} of many" for number in range(60)]

    record(quiet, titles)
    page.wait_for("document.querySelector('[data-show]').textContent === '60 new events: show'")
    page.page.click("[data-show]")
    page.page.wait_for_selector("[data-show]", state="hidden")
    shown = first_titles(page, 60)
    page.page.press("a[rel=next]", "Enter")  # notices lie over it
    page.page.wait_for_url("**before=*")

    assert shown + first_titles(page, 60 - len(shown)) == titles[::-1]


def test_a_device_that_is_renamed_is_not_announced_as_online_again(quiet, open_page):
    say_online(quiet, "clinic")
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/events/")
    page.wait_until_live()

    say_online(quiet, "the clinic")
    record(quiet, ["an error after it"])
    page.wait_for("document.querySelector('[data-show]').textContent === '1 new event: show'")
    page.page.click("[data-show]")
    page.page.wait_for_selector("[data-show]", state="hidden")

    assert first_titles(page, 2) == ["an error after it", "clinic is online"]


def test_health_is_measured_again_when_the_socket_brings_something_and_keeps_the_focus(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/health/")
    page.wait_until_live()
    page.page.focus("main .page-head a")

    say_that_another_process_lives(quiet)
    record(quiet, ["something"])

    page.wait_for("document.querySelector('[data-fresh=sockets]').textContent.includes('4,711 open')")
    page.wait_for("document.querySelector('[data-fresh=processes] tbody').textContent.includes('4,711')")
    assert page.page.evaluate("document.activeElement.textContent.trim()") == "Measure again"
    assert page.faults == []


def test_health_says_that_it_could_not_be_measured_until_it_could(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/health/")
    page.wait_until_live()

    rename_table(quiet, "realtime_serverprocess", "taken_away")
    record(quiet, ["something"])
    page.page.wait_for_selector("[data-field=trouble]:not([hidden])")
    said = page.text("[data-field=trouble]")
    rename_table(quiet, "taken_away", "realtime_serverprocess")
    page.page.wait_for_selector("[data-field=trouble]", state="hidden")

    assert said == "Nothing could be measured since then: the server answered 500 Internal Server Error."
    assert {fault for fault in page.faults if "500" not in fault} == set()


def test_a_page_of_older_events_announces_nothing(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "viewer")
    page.page.goto(f"{quiet.url}/events/?at=system-1#system-1")
    page.wait_until_live()
    other = signed_in(quiet, open_page(quiet.url), "viewer")
    other.page.goto(f"{quiet.url}/events/")
    other.wait_until_live()

    record(quiet, ["seen elsewhere"])
    other.page.wait_for_selector("[data-show]:not([hidden])")

    assert page.page.locator("[data-show]:not([hidden])").count() == 0
    assert page.page.locator(".event.chosen").get_attribute("id") == "system-1"


def test_the_inspector_shows_what_crosses_the_wire_and_what_one_sends_to_try_it(quiet, open_page):
    permissions = ["clipboard-read", "clipboard-write"]
    page = signed_in(quiet, open_page(quiet.url, permissions=permissions), "admin")
    browser = page.page
    browser.goto(f"{quiet.url}/inspector/")
    page.wait_until_live()
    browser.wait_for_selector(".frame >> text=welcome")

    browser.click("[data-test-event] button")
    browser.wait_for_selector(".frame >> text=error_notification")
    browser.select_option("[data-event]", "error_notification")
    browser.wait_for_selector(".frame >> text=welcome", state="detached")
    browser.click(".frame summary")
    page.wait_for("document.querySelector('.frame pre').textContent !== ''")
    shown = json.loads(browser.inner_text(".frame pre"))
    browser.click(".frame [data-copy-one]")
    page.wait_for("document.querySelector('.frame [data-copy-one]').textContent.includes('Copied')")
    copied = json.loads(browser.evaluate("navigator.clipboard.readText()"))

    assert shown["data"]["title"] == "Test event from admin"
    assert (copied["direction"], copied["frame"]) == ("in", shown)
    assert f"{shown['stream']}#{shown['seq']}" in page.text(".frame summary")
    assert page.faults == []


def test_the_inspector_holds_still_while_it_is_paused_and_says_what_it_missed(quiet, open_page):
    page = signed_in(quiet, open_page(quiet.url), "admin")
    browser = page.page
    browser.goto(f"{quiet.url}/inspector/")
    page.wait_until_live()
    browser.wait_for_selector(".frame >> text=welcome")

    browser.click("[data-pause]")
    browser.click("[data-test-event] button")
    browser.wait_for_selector(".notice >> text=Test event from admin")
    page.wait_for("/paused, [1-9]/.test(document.querySelector('[data-field=count]').textContent)")
    missed = browser.locator(".frame >> text=error_notification").count()
    browser.click("[data-pause]")
    browser.click("[data-test-event] button")
    browser.wait_for_selector(".frame >> text=error_notification")

    assert missed == 0
    assert browser.locator(".frame >> text=error_notification").count() == 1
    assert page.faults == []


def test_without_scripts_the_inspector_explains_itself_and_events_are_filtered(quiet, open_page):
    page = open_page(quiet.url, java_script_enabled=False)
    browser = page.page
    browser.goto(f"{quiet.url}/sign-in/")
    browser.fill("#code", quiet.prepare()["codes"]["viewer"])
    browser.click("main [type=submit]")

    browser.goto(f"{quiet.url}/inspector/")
    explained = page.text("main")
    browser.goto(f"{quiet.url}/events/")
    browser.fill("[name=q]", "THE FIRST")
    browser.click("main form.filters [type=submit]")

    assert "without scripts there is none" in explained
    assert first_titles(page, 2) == ["the first"]
