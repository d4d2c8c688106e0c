"""Pages about devices in a real browser: one is let in before one's eyes, and a list changes without moving."""

import pytest

from tests.browser.conftest import World

A_CROWD = """
from django.utils import timezone
from fl import devices
from fl.models import Device
from tests.builders import crowd
now = timezone.now()
made = crowd(40, online=30, now=now)
devices.suspend(device=made[0], reason="numbers that are odd in a way that takes many words to say", now=now, by=None)
devices.tag_device(device=made[1], tags=["north", "gpu"], now=now, by=None)
"""


@pytest.fixture
def world(tmp_path):
    """A server that says soon that a device has gone."""
    made = World(tmp_path, environment={"QFLARE_PRESENCE_GRACE_SECONDS": "0.5", "QFLARE_CLOCK_SECONDS": "0.2"})
    yield made
    made.close()


def signed_in(world, page, role, devices=0):
    made = world.prepare(devices)
    page.page.goto(f"{world.url}/sign-in/#code={made['codes'][role]}")
    page.page.wait_for_url(f"{world.url}/")
    return made


def test_a_device_is_let_in_by_its_token_before_ones_eyes(world, open_page):
    page = open_page(world.url)
    signed_in(world, page, "operator")
    browser = page.page
    browser.goto(f"{world.url}/devices/enrol/")
    browser.fill("[name=label]", "clinic-a")
    browser.check("[name=auto_approve]")
    browser.click("[data-form=token] [type=submit]")
    page.wait_until_live()
    browser.evaluate("window.sameDocument = true")
    before = page.text("[data-piece=awaited]")
    token = page.text("#enroll-command").split("--token ")[1].split()[0]
    browser.click("main summary >> text=QR code")

    world.start_fleet([token])
    browser.wait_for_selector("[data-piece=awaited][data-state=online]")

    (name,) = world.query("[d.name for d in Device.objects.all()]")
    assert before == "No device has used it yet."
    assert page.text("[data-piece=awaited]") == f"{name} connected."
    assert f"{name} by token clinic-a" in page.text("[data-piece=used]").replace("\n", " ")
    assert token in page.text("#enroll-command")
    assert browser.is_visible(".qr")
    assert browser.evaluate("window.sameDocument")
    assert page.faults == []


def test_the_list_changes_in_place_and_says_when_others_match(world, open_page):
    page = open_page(world.url)
    made = signed_in(world, page, "operator", devices=2)
    browser = page.page
    browser.goto(f"{world.url}/devices/?show=online")
    page.wait_until_live()
    browser.fill("[name=q]", "half typed")

    fleet = world.start_fleet(made["tokens"])
    page.wait_for("document.querySelector('[data-piece=count-online]').textContent === '2'")
    page.wait_for("document.querySelector('[data-field=news]').textContent.includes('2 more devices match.')")
    assert browser.input_value("[name=q]") == "half typed"
    assert browser.locator("[data-list=device-list] [data-key]").count() == 0
    browser.click("[data-field=news_link]")
    browser.wait_for_selector("[data-list=device-list] [data-key]")
    page.wait_until_live()
    rows = "[...document.querySelectorAll('[data-list=device-list] [data-word]')].map(word => word.textContent).join()"
    assert browser.evaluate(rows) == "Online,Online"
    browser.evaluate("window.sameDocument = true")

    fleet.terminate()
    page.wait_for(f"{rows} === 'Offline,Offline'")
    page.wait_for("document.querySelector('[data-piece=count-offline]').textContent === '2'")

    page.wait_for("document.querySelector('[data-field=news]').textContent.includes('2 devices no longer match.')")
    assert browser.evaluate("window.sameDocument")
    assert page.faults == []


def test_the_page_of_a_device_follows_its_round(world, open_page):
    page = open_page(world.url)
    made = signed_in(world, page, "admin", devices=1)
    world.start_fleet(made["tokens"])
    browser = page.page
    while not world.query("Device.objects.filter(lease__isnull=False).count()"):
        browser.wait_for_timeout(200)
    browser.goto(f"{world.url}/devices/1/")
    page.wait_until_live()
    browser.fill("#suspend-reason", "half typed")
    browser.evaluate("window.sameDocument = true")

    world.server.manage("shell", "-v0", "-c", START_A_RUN)
    browser.wait_for_selector("[data-piece=rounds] tbody tr")
    browser.wait_for_selector("[data-piece=charts] polyline")

    assert browser.input_value("#suspend-reason") == "half typed"
    assert browser.evaluate("window.sameDocument")
    assert page.faults == []


START_A_RUN = """
from django.utils import timezone
from fl.runs import RunPlan, create_run, start_run
plan = RunPlan(name="a run", task="digits", rounds=5, cohort_size=1)
start_run(run=create_run(plan=plan, created_by=None, now=timezone.now()), now=timezone.now())
"""
PATHS = ["/devices/", "/devices/?show=attention", "/devices/1/", "/devices/1/?hours=168", "/devices/enrol/?token=1"]


def test_pages_about_devices_fit_a_phone_in_light_and_dark_without_faults(world, open_page):
    world.server.manage("shell", "-v0", "-c", A_CROWD)
    for scheme in ("light", "dark"):
        page = open_page(world.url, color_scheme=scheme, viewport={"width": 320, "height": 640})
        signed_in(world, page, "admin")
        for path in PATHS:
            page.page.goto(world.url + path)
            width = page.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 320, (path, width)
            assert page.page.evaluate(_NAMELESS) == [], path
        page.page.goto(f"{world.url}/devices/enrol/")
        page.page.click("[data-form=token] [type=submit]")
        page.page.click("main summary >> text=QR code")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 320
        assert page.faults == []
        assert page.foreign == []


_NAMELESS = """() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, progress, [role=img]')]
  .filter(e => e.checkVisibility({ visibilityProperty: true }))
  .filter(e => !(e.innerText?.trim() || e.getAttribute('aria-label') || e.labels?.length))
  .map(e => e.outerHTML)"""
