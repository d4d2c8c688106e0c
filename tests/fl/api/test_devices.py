"""Devices and their tokens over REST."""

from datetime import timedelta

import pytest
from django.utils import timezone

from edge.protocol.enrollment import parse_token
from fl import devices
from fl.models import Device, EnrollmentToken, Event
from fl.server_key import server_key
from tests.builders import participant
from tests.fl.api.conftest import error_of

pytestmark = pytest.mark.django_db


def listed(client, query=""):
    return [device["name"] for device in client.get(f"/api/v1/devices/{query}").json()["results"]]


def test_a_device_tells_its_presence_activity_and_tasks(viewer, training):
    run, (first, _) = training

    body = viewer.get(f"/api/v1/devices/{first.device.pk}/").json()

    assert (body["state"], body["presence"], body["activity"]) == ("active", "online", "assigned")
    assert (body["run"], body["round"]) == (run.pk, 1)
    assert [(offer["task"], offer["num_examples"]) for offer in body["tasks"]] == [("linear", 40)]
    assert "public_key" not in body


def test_a_device_that_never_connected_is_offline_and_idle(viewer):
    device = participant().device

    body = viewer.get(f"/api/v1/devices/{device.pk}/").json()

    assert (body["presence"], body["activity"], body["run"], body["tasks"]) == ("offline", "idle", None, [])


def test_devices_are_filtered_by_state_presence_task_and_name(viewer):
    participant("oak").connect(timezone.now())
    participant("elm")
    participant("ash", auto_approve=False)

    assert listed(viewer) == ["ash", "elm", "oak"]
    assert listed(viewer, "?state=pending") == ["ash"]
    assert listed(viewer, "?online=true") == ["oak"]
    assert listed(viewer, "?online=false") == ["ash", "elm"]
    assert listed(viewer, "?task=linear") == ["oak"]
    assert listed(viewer, "?search=L") == ["elm"]


def test_a_list_of_devices_costs_the_same_however_long_it_is(viewer, django_assert_num_queries, training):
    viewer.get("/api/v1/devices/")
    with django_assert_num_queries(7):  # session, person, role; count, devices, tasks, assignments
        viewer.get("/api/v1/devices/")
    for _ in range(3):
        participant().connect(timezone.now())

    with django_assert_num_queries(7):
        viewer.get("/api/v1/devices/")


def test_a_reason_is_kept_and_told(operator):
    device = participant().device

    body = operator.post(f"/api/v1/devices/{device.pk}/suspend/", {"reason": "odd numbers"}).json()

    assert (body["state"], body["state_reason"]) == ("suspended", "odd numbers")
    assert "odd numbers" in Event.objects.filter(stream="system").latest("seq").data


def test_a_decision_that_the_state_does_not_allow_answers_409(operator):
    device = participant().device

    response = operator.post(f"/api/v1/devices/{device.pk}/approve/")

    assert (response.status_code, error_of(response)) == (409, "wrong_move")


def test_a_revoked_device_stays_revoked(admin):
    device = participant().device
    admin.post(f"/api/v1/devices/{device.pk}/revoke/", {"reason": "lost"})

    response = admin.post(f"/api/v1/devices/{device.pk}/reinstate/")

    assert error_of(response) == "wrong_move"
    assert Device.objects.get().state == "revoked"


# ── names and tags ────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(client, device, **changes):
    return client.patch(f"/api/v1/devices/{device.pk}/", changes, content_type="application/json")


def test_an_operator_renames_and_tags_a_device(operator):
    device = participant("shed").device

    body = changed(operator, device, name="ward", tags=["north", "gpu"]).json()

    assert (body["name"], body["tags"]) == ("ward", ["north", "gpu"])
    assert operator.get(f"/api/v1/devices/{device.pk}/").json() == body


def test_what_is_left_out_stays(operator):
    device = participant("shed").device
    changed(operator, device, tags=["north"])

    body = changed(operator, device, name="ward").json()

    assert (body["name"], body["tags"]) == ("ward", ["north"])
    assert changed(operator, device).json() == body


def test_a_viewer_changes_no_name(viewer):
    device = participant("shed").device

    assert changed(viewer, device, name="ward").status_code == 403
    assert Device.objects.get().name == "shed"


@pytest.mark.parametrize("changes", [{"name": " "}, {"name": "x" * 101}, {"tags": ["a,b"]}, {"tags": ["x"] * 11}])
def test_a_name_or_tag_that_cannot_be_is_refused(operator, changes):
    response = changed(operator, participant("shed").device, **changes)

    assert (response.status_code, error_of(response)) == (422, "invalid")


def test_a_name_that_is_taken_answers_409(operator):
    participant("ward")

    response = changed(operator, participant("shed").device, name="ward")

    assert (response.status_code, error_of(response)) == (409, "device_exists")


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_issued_with_its_text(operator):
    wanted = {"label": "greenhouse", "auto_approve": True, "lifetime_hours": 2}

    response = operator.post("/api/v1/enrollment-tokens/", wanted)

    body, token = response.json(), EnrollmentToken.objects.get()
    assert response.status_code == 201
    assert parse_token(body["token"]).id == token.token_id
    assert parse_token(body["token"]).fingerprint == server_key().fingerprint
    assert (token.label, token.auto_approve, token.created_by.username) == ("greenhouse", True, "operator")
    assert token.expires_at - token.created_at == timedelta(hours=2)


def test_a_token_waits_for_approval_and_lives_a_day_unless_asked_otherwise(operator):
    body = operator.post("/api/v1/enrollment-tokens/").json()

    token = EnrollmentToken.objects.get()
    assert body["auto_approve"] is False
    assert token.expires_at - token.created_at == timedelta(days=1)


@pytest.mark.parametrize("hours", [0, -1, -1e300, 10**9, "soon"])
def test_a_lifetime_that_cannot_be_is_refused(operator, hours):
    response = operator.post("/api/v1/enrollment-tokens/", {"lifetime_hours": hours})

    assert (response.status_code, error_of(response)) == (422, "invalid")
    assert not EnrollmentToken.objects.exists()


def test_tokens_are_listed_without_anything_secret(operator):
    _, text = devices.issue_token(
        label="x", auto_approve=False, lifetime=timedelta(hours=1), created_by=None, now=timezone.now()
    )

    response = operator.get("/api/v1/enrollment-tokens/")

    (listed_token,) = response.json()["results"]
    assert listed_token["label"] == "x"
    assert "token" not in listed_token
    assert text.secret not in response.content.decode()
    assert EnrollmentToken.objects.get().secret_hash not in response.content.decode()


def test_a_used_token_tells_which_device_it_let_in(operator):
    device = participant().device

    (token,) = operator.get("/api/v1/enrollment-tokens/").json()["results"]

    assert token["device"] == device.pk
    assert token["used_at"] is not None
