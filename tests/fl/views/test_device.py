"""The page of one device."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from fl import devices
from fl.exceptions import UpdateRefused
from tests.builders import crowd, participant, started_run, step
from tests.fl.views.answers import state_of, text_of

pytestmark = pytest.mark.django_db


def page_of(client, device, query=""):
    answer = client.get(reverse("device", args=[device.pk]) + query)
    assert answer.status_code == 200
    return answer


def worker(name="clinic", rounds=1):
    """Make a device that is online and had an update accepted in each of so many rounds."""
    device = participant(name, now=timezone.now()).connect(timezone.now())
    run = started_run(timezone.now(), cohort_size=1, rounds=rounds + 1)
    step(run, timezone.now())
    for _ in range(rounds):
        device.send(now=timezone.now())
        step(run, timezone.now())
        step(run, timezone.now())
    return device


def test_a_device_is_shown_whole_without_scripts(viewer):
    device = worker().device
    devices.tag_device(device=device, tags=["north"], now=timezone.now(), by=None)

    page = text_of(page_of(viewer, device))

    assert "clinic" in page
    assert "north" in page
    assert "version 0.1.0" in page
    assert device.fingerprint in page
    assert re.search(r"linear supports proximal 40 ", page)
    assert re.search(r"a run r-\d{4} 1 Received", page)
    assert "Local loss" in page
    assert "clinic is online" in page


def test_scripts_start_from_the_device_and_what_it_does(viewer):
    device = worker().device

    state = state_of(page_of(viewer, device))

    assert state["page"] == "device"
    assert [known["device_id"] for known in state["devices"]] == [device.pk]
    assert [part["phase"] for part in state["progress"]] == ["assigned"]


def test_why_an_update_was_rejected_is_read_at_its_round_and_at_the_top(viewer):
    device = participant("clinic").connect()
    step(started_run(cohort_size=1))
    with pytest.raises(UpdateRefused) as refusal:
        device.send(data=b"no weights")

    page = text_of(page_of(viewer, device.device))

    assert f"its last update was rejected: {refusal.value.message}" in page
    assert re.search(rf"Rejected {re.escape(refusal.value.message)}", page)


def test_the_strip_draws_what_its_events_tell(viewer):
    now = timezone.now()
    device = participant("clinic", now=now - timedelta(hours=12)).connect(now - timedelta(hours=6))

    page = page_of(viewer, device.device).content.decode()

    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="0" width="([\d.]+)"', page)
    assert [(kind, round(float(width))) for kind, _, width in bars] == [
        ("unknown", 500),
        ("offline", 250),
        ("online", 250),
    ]
    assert 'aria-label="Online 50 % of the known time"' in page
    week = page_of(viewer, device.device, "?hours=168").content.decode()
    assert re.search(r'hours=168" aria-current="true"', week)


@pytest.mark.parametrize("query", ["?hours=1000", "?hours=x", "?page=0", "?page=x", "?page=999", "?hours=-1&page=-1"])
def test_an_address_that_asks_for_nonsense_shows_the_page(viewer, query):
    assert "clinic" in text_of(page_of(viewer, participant("clinic").device, query))


def test_a_device_that_is_not_there_is_not_found(viewer):
    assert viewer.get("/devices/99/").status_code == 404
    assert viewer.get(f"/devices/{10**30}/").status_code == 404


def test_the_page_says_by_which_token_it_came_and_who_issued_that(operator):
    operator.post(reverse("enroll-device"), {"label": "for the ward", "lifetime": "900"})
    device = participant("clinic").device
    device.enrollment_token.label = "for the ward"
    device.enrollment_token.created_by = User.objects.get(username="omar")
    device.enrollment_token.save()

    assert "By token for the ward, issued by omar" in text_of(page_of(operator, device))


def test_controls_are_drawn_for_those_who_may_use_them(client, operator):
    device = participant("clinic").device

    page = page_of(operator, device).content.decode()

    assert all(f"/devices/{device.pk}/{command}/" in page for command in ("rename", "tag", "suspend"))
    assert f"/devices/{device.pk}/revoke/" not in page
    assert f"/devices/{device.pk}/approve/" not in page


def test_a_viewer_sees_no_controls_and_not_the_devices_own_stream(viewer):
    device = participant("clinic").device

    page = page_of(viewer, device).content.decode()

    assert 'method="post" action="/devices/' not in page
    assert device.stream not in page


def test_an_admin_revokes_after_a_question_and_reads_what_the_device_was_told(admin):
    device = worker().device

    page = page_of(admin, device).content.decode()

    assert re.search(r"<details[^>]*>\s*<summary[^>]*>.*?Revoke….*?/revoke/", page, re.DOTALL)
    assert device.stream in page
    assert "assignment" in text_of(page_of(admin, device))


def test_a_public_page_shows_no_key_and_no_names_of_people(client, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    device = participant("kiosk").device
    device.enrollment_token.created_by = User.objects.create_user("omar")
    device.enrollment_token.save()

    for query in ("", "?pieces=1"):
        page = page_of(client, device, query).content.decode()
        assert "kiosk" in page
        assert device.fingerprint[:12] not in page
        assert "omar" not in page
        assert 'method="post" action="/devices/' not in page


def test_the_page_takes_as_many_queries_however_much_there_is(viewer):
    device = worker(rounds=1)

    def count():
        with CaptureQueriesContext(connection) as captured:
            page_of(viewer, device.device)
        return len([query for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))])

    before = count()
    device.send(now=timezone.now())
    devices.suspend(device=device.device, reason="noise", now=timezone.now(), by=None)
    devices.reinstate(device=device.device, now=timezone.now(), by=None)
    crowd(20)

    assert count() == before
    assert before <= 16
