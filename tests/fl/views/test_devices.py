"""The list of devices, and commands by form."""

import re
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fl import devices
from fl.lifecycle import DeviceState
from fl.models import Device
from tests.builders import NOW, crowd, participant, started_run, step
from tests.fl.views.answers import state_of, text_of

pytestmark = pytest.mark.django_db


def listed(client, **query):
    """Return the names in the rows of the list, in their order."""
    page = client.get(f"{reverse('device-list')}?{urlencode(query)}")
    assert page.status_code == 200
    return re.findall(r'data-field="name">([^<]+)<', page.content.decode())


def test_operators_suspend_and_reinstate_and_only_admins_revoke(operator):
    device = participant("clinic").device

    operator.post(reverse("command-device", args=[device.pk, "suspend"]))
    device.refresh_from_db()
    suspended = device.state
    operator.post(reverse("command-device", args=[device.pk, "reinstate"]))
    refused = operator.post(reverse("command-device", args=[device.pk, "revoke"]))

    device.refresh_from_db()
    assert suspended == DeviceState.SUSPENDED
    assert refused.status_code == 403
    assert device.state == DeviceState.ACTIVE
    assert "Revoke " not in text_of(operator.get(reverse("device-list")))


@pytest.mark.parametrize(("command", "state"), [("suspend", "suspended"), ("revoke", "revoked")])
def test_why_a_device_is_barred_is_passed_on(admin, command, state):
    device = participant("clinic").device

    admin.post(reverse("command-device", args=[device.pk, command]), {"reason": " odd numbers\0 "})

    device.refresh_from_db()
    assert (device.state, device.state_reason) == (state, "odd numbers")


def test_an_admin_revokes_a_device(admin):
    device = participant("clinic").device

    admin.post(reverse("command-device", args=[device.pk, "revoke"]))

    assert Device.objects.get(pk=device.pk).state == DeviceState.REVOKED


def test_a_device_is_renamed_and_tagged_by_form(operator):
    device = participant("clinic").device

    renamed = operator.post(
        reverse("command-device", args=[device.pk, "rename"]), {"name": "ward", "next": "/devices/1/"}
    )
    operator.post(reverse("command-device", args=[device.pk, "tag"]), {"tags": "north, gpu,"})

    device.refresh_from_db()
    assert (device.name, device.tags) == ("ward", ["north", "gpu"])
    assert renamed.url == "/devices/1/"


def test_a_name_that_is_taken_is_refused_in_words(operator):
    participant("ward")
    device = participant("clinic").device

    page = operator.post(reverse("command-device", args=[device.pk, "rename"]), {"name": "ward"}, follow=True)

    assert "is enrolled already. Choose another name." in text_of(page)
    assert Device.objects.get(pk=device.pk).name == "clinic"


def test_a_viewer_commands_no_device_and_sees_no_command(viewer):
    device = participant("clinic").device

    answers = [
        viewer.post(reverse("command-device", args=[device.pk, command]), {"name": "ward", "tags": "gpu"})
        for command in ("suspend", "revoke", "rename", "tag")
    ]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert '<form method="post" action="/devices/' not in viewer.get(reverse("device-list")).content.decode()


def test_a_command_that_there_is_not_is_not_found(operator):
    device = participant("clinic").device

    assert operator.post(reverse("command-device", args=[device.pk, "explode"])).status_code == 404


def test_a_devices_state_is_told_in_words(viewer):
    participant("here").connect()
    participant("away")
    suspended = participant("barred")
    devices.suspend(device=suspended.device, reason="too noisy", now=NOW, by=None)

    page = text_of(viewer.get(reverse("device-list")))

    assert re.search(r"away .*?Offline", page)
    assert re.search(r"barred .*?Suspended suspended: too noisy", page)
    assert re.search(r"here .*?Online", page)


def test_tabs_count_what_they_show(viewer):
    crowd(7, online=4)
    participant("new", auto_approve=False)

    page = text_of(viewer.get(reverse("device-list")))

    assert re.search(r"All 8 Attention 1 Training 0 Online 4 Offline 3 Pending 1 Revoked 0", page)
    assert len(listed(viewer, show="online")) == 4
    assert listed(viewer, show="pending") == listed(viewer, show="attention") == ["new"]


def test_what_is_asked_for_is_combined_and_kept_by_links(viewer):
    crowd(60, online=55)
    devices.tag_device(device=Device.objects.get(name="crowd-0002"), tags=["north"], now=NOW, by=None)

    assert listed(viewer, show="online", q="000", sort="-examples") == [f"crowd-000{n}" for n in range(9, -1, -1)]
    assert listed(viewer, tag="north") == ["crowd-0002"]
    assert listed(viewer, show="online", page="2", sort="-name") == [f"crowd-{n:04d}" for n in range(4, -1, -1)]
    page = viewer.get("/devices/?show=online&q=crowd&sort=-name").content.decode()
    assert 'href="?show=online&amp;q=crowd&amp;sort=-name&amp;page=2"' in page
    assert 'aria-sort="descending"' in page
    assert 'href="?show=online&amp;q=crowd&amp;sort=name"' in page


@pytest.mark.parametrize(
    "query",
    [
        {"show": "nonsense"},
        {"sort": "nonsense"},
        {"sort": "-"},
        {"page": "0"},
        {"page": "-1"},
        {"page": "many"},
        {"page": "99999999"},
        {"page": "9" * 30},
        {"q": "\0"},
        {"tag": "nobody has this"},
    ],
)
def test_an_address_that_asks_for_nonsense_shows_a_list(viewer, query):
    participant("clinic")

    names = listed(viewer, **query)

    assert names == ([] if "q" in query or "tag" in query else ["clinic"])


def test_more_than_32_devices_are_a_mosaic_with_words(viewer):
    crowd(32, online=30)
    few = viewer.get(reverse("device-list")).content.decode()
    participant("new", auto_approve=False)

    many = viewer.get(reverse("device-list")).content.decode()

    assert "data-square" not in few
    assert many.count("data-square=") == 33
    assert "<title>new: Waits for approval</title>" in many
    assert 'aria-label="33 devices: 1 waits for approval, 2 offline, 30 online"' in many


def test_the_list_takes_at_most_twelve_queries_with_500_devices(viewer):
    crowd(500, online=470)
    participant("busy").connect()
    step(started_run(cohort_size=1))

    for address in ("/devices/", "/devices/?sort=-rounds", "/devices/?show=attention&q=crowd"):
        with CaptureQueriesContext(connection) as captured:
            viewer.get(address)
        statements = [query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]
        assert len(statements) <= 12, "\n".join(statements)


def test_scripts_start_from_all_devices_and_what_they_do(viewer):
    crowd(60)
    participant("busy").connect()
    step(started_run(cohort_size=1))

    state = state_of(viewer.get("/devices/?q=nobody"))

    assert (state["page"], len(state["devices"])) == ("devices", 61)
    assert [part["device_name"] for part in state["progress"]] == ["busy"]


def test_the_pages_script_gets_the_pieces_alone_and_forms_lead_back_to_the_page(operator):
    participant("new", auto_approve=False)

    pieces = operator.get("/devices/?show=pending&pieces=1").content.decode()

    assert "<html" not in pieces
    assert 'data-piece="count-pending">1<' in pieces
    assert 'name="next" value="/devices/?show=pending"' in pieces
    assert "pieces" not in pieces


def test_a_public_list_shows_no_keys_and_no_commands(client, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    device = participant("kiosk").device

    for address in ("/devices/", "/devices/?pieces=1"):
        page = client.get(address).content.decode()
        assert "kiosk" in page
        assert device.fingerprint[:12] not in page
        assert '<form method="post"' not in page
