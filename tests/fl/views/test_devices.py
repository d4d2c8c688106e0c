"""The list of devices, enrolment, and commands by form."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse

from edge.protocol.enrollment import parse_token
from fl import devices
from fl.lifecycle import DeviceState
from fl.models import Device, EnrollmentToken
from tests.builders import NOW, participant
from tests.fl.views.answers import text_of

pytestmark = pytest.mark.django_db


def test_a_token_is_shown_once_with_the_command_to_copy(operator):
    answer = operator.post(reverse("enroll-device"), {"label": "clinic", "lifetime": "900"})
    again = operator.get(reverse("enroll-device"))

    token = EnrollmentToken.objects.get()
    command = re.search(r'id="enroll-command">([^<]+)<', answer.content.decode())[1]
    shown = re.search(r"--token (\S+)", command)[1]
    assert parse_token(shown).id == token.token_id
    assert command.startswith("qflare-edge enroll http://testserver --token ")
    assert "no-store" in answer.headers["Cache-Control"]
    assert token.expires_at - token.created_at == timedelta(minutes=15)
    assert parse_token(shown).secret not in again.content.decode()
    assert token.token_id in text_of(again)


def test_a_device_that_waits_is_approved_by_a_button(operator):
    waiting = participant("clinic", auto_approve=False).device

    page = text_of(operator.get(reverse("enroll-device")))
    operator.post(reverse("command-device", args=[waiting.pk, "approve"]))

    waiting.refresh_from_db()
    assert "Approve clinic" in page
    assert waiting.state == DeviceState.ACTIVE


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
    assert "Revoke" not in text_of(operator.get(reverse("device-list")))


def test_an_admin_revokes_a_device(admin):
    device = participant("clinic").device

    admin.post(reverse("command-device", args=[device.pk, "revoke"]))

    assert Device.objects.get(pk=device.pk).state == DeviceState.REVOKED


def test_a_devices_state_is_told_in_words(viewer):
    participant("here").connect()
    participant("away")
    suspended = participant("barred")
    devices.suspend(device=suspended.device, reason="too noisy", now=NOW, by=None)

    page = text_of(viewer.get(reverse("device-list")))

    assert re.search(r"away .*?Offline", page)
    assert re.search(r"barred .*?Suspended", page)
    assert re.search(r"here .*?Online", page)
