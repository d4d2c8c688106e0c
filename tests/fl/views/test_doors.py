"""Who may open a page, and what every page keeps to."""

from html.parser import HTMLParser

import pytest
from django.urls import reverse

from fl.lifecycle import RunState
from fl.models import Device
from tests.builders import participant, person, started_run
from tests.fl.views.answers import after_one_round, text_of

pytestmark = pytest.mark.django_db


READ_PAGES = ["overview", "run-list", "device-list"]
WRITE_PAGES = ["new-run", "enroll-device"]


@pytest.mark.parametrize("name", READ_PAGES + WRITE_PAGES)
def test_whoever_is_not_signed_in_is_sent_to_the_login_and_back(client, name):
    response = client.get(reverse(name))

    assert response.status_code == 302
    assert response.url == f"/login/?next={reverse(name)}"


@pytest.mark.parametrize("name", READ_PAGES + WRITE_PAGES)
def test_a_person_without_a_role_is_refused(client, name):
    client.force_login(person("nobody"))

    assert client.get(reverse(name)).status_code == 403


@pytest.mark.parametrize("name", READ_PAGES)
def test_a_public_dashboard_may_be_read_by_everybody(client, settings, name):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert client.get(reverse(name)).status_code == 200


@pytest.mark.parametrize("name", WRITE_PAGES)
def test_a_public_dashboard_may_be_changed_by_nobody(client, settings, name):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert client.get(reverse(name)).url.startswith("/login/")


def test_a_public_dashboard_shows_no_keys(client, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    device = participant("kiosk").device

    page = client.get(reverse("device-list"))

    assert "kiosk" in text_of(page)
    assert device.fingerprint[:12] not in page.content.decode()


def test_a_control_that_a_viewer_may_not_use_is_not_drawn_and_is_refused_all_the_same(viewer):
    run = started_run()

    page = viewer.get(reverse("run", args=[run.pk]))
    refused = [
        viewer.post(reverse("command-run", args=[run.pk, "pause"])),
        viewer.post(reverse("extend-deadline", args=[run.pk]), {"seconds": "60"}),
        viewer.post(reverse("stop-run", args=[run.pk]), {"when": "now"}),
        viewer.post(reverse("start-demo")),
    ]

    assert "data-command" not in page.content.decode()
    assert [response.status_code for response in refused] == [403] * 4
    run.refresh_from_db()
    assert run.state == RunState.RUNNING


def test_no_page_has_a_style_or_script_in_its_markup(admin):
    run = after_one_round()
    device = reverse("device", args=[Device.objects.first().pk])
    pages = ["/", reverse("run", args=[run.pk]), device, "/login/", "/sign-in/"]
    addresses = [*pages, *map(reverse, READ_PAGES + WRITE_PAGES)]

    for address in addresses:
        finder = InlineFinder()
        finder.feed(admin.get(address).content.decode())
        assert finder.found == [], address


class InlineFinder(HTMLParser):
    """Collects what a strict Content-Security-Policy would block, and what comes from another host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.found += [(tag, name) for name in named if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in named and named.get("type") != "application/json"):
            self.found.append((tag, "inline"))
        fetched = [named.get(name) or "" for name in ("src", "href", "action") if tag != "a"]
        self.found += [(tag, address) for address in fetched if "//" in address]


def test_the_admin_has_the_same_colours(client):
    assert "css/admin.css" in client.get("/admin/login/").content.decode()
