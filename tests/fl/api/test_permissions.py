"""Viewers read, operators command, admins revoke; who is nobody does none of it."""

from dataclasses import replace

import pytest
from django.utils import timezone

from fl import devices, runs
from tests.builders import PLAN, participant, person
from tests.fl.api.conftest import bearer, error_of

pytestmark = pytest.mark.django_db

READS = ["runs/", "devices/", "tasks/", "strategies/", "steps/"]
COMMANDS = ["start", "pause", "resume", "extend-deadline", "stop"]


@pytest.mark.parametrize("address", READS)
def test_a_viewer_reads(viewer, address):
    assert viewer.get(f"/api/v1/{address}").status_code == 200


@pytest.mark.parametrize("address", READS)
def test_nobody_reads_nothing(anybody, signed_in, address):
    assert anybody.get(f"/api/v1/{address}").status_code == 401
    assert signed_in("").get(f"/api/v1/{address}").status_code == 403


def test_everybody_reads_where_the_dashboard_is_public_and_commands_nothing(anybody, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert anybody.get("/api/v1/runs/").status_code == 200
    assert anybody.post("/api/v1/runs/").status_code == 401
    assert anybody.get("/api/v1/enrollment-tokens/").status_code == 401


def test_keys_are_not_shown_to_who_is_not_signed_in(anybody, viewer, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    device = participant().device

    (seen,) = anybody.get("/api/v1/devices/").json()["results"]
    (known,) = viewer.get("/api/v1/devices/").json()["results"]

    assert seen["fingerprint"] is None
    assert known["fingerprint"] == device.fingerprint


def test_who_made_a_run_is_not_told_to_who_is_not_signed_in(anybody, viewer, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    runs.create_run(plan=replace(PLAN, public=True), created_by=person("ada", "operator"), now=timezone.now())

    (seen,) = anybody.get("/api/v1/runs/").json()["results"]
    (known,) = viewer.get("/api/v1/runs/").json()["results"]

    assert (seen["created_by"], known["created_by"]) == (None, "ada")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_viewer_steers_no_run(viewer, command):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())

    response = viewer.post(f"/api/v1/runs/{run.pk}/{command}/")

    assert (response.status_code, error_of(response)) == (403, "not_allowed")
    run.refresh_from_db()
    assert run.state == "pending"


def test_a_viewer_makes_no_run_and_no_token_and_reads_none(viewer):
    assert viewer.post("/api/v1/runs/").status_code == 403
    assert viewer.post("/api/v1/enrollment-tokens/").status_code == 403
    assert viewer.get("/api/v1/enrollment-tokens/").status_code == 403


def test_an_operator_approves_and_suspends_and_an_admin_alone_revokes(operator, admin):
    device = participant(auto_approve=False).device
    address = f"/api/v1/devices/{device.pk}"

    assert operator.post(f"{address}/approve/").json()["state"] == "active"
    assert operator.post(f"{address}/suspend/").json()["state"] == "suspended"
    assert operator.post(f"{address}/reinstate/").json()["state"] == "active"
    assert error_of(operator.post(f"{address}/revoke/")) == "not_allowed"
    assert admin.post(f"{address}/revoke/").json()["state"] == "revoked"


def test_a_suspended_person_has_no_role(operator, django_user_model):
    django_user_model.objects.update(is_active=False)

    assert operator.get("/api/v1/runs/").status_code == 401


def test_a_barred_device_is_cut_off_from_the_addresses_of_devices(anybody):
    device = participant()
    devices.revoke(device=device.device, reason="lost", now=timezone.now(), by=None)

    assert anybody.post("/api/v1/assignments/1/failure/", headers=bearer(device)).status_code == 401
