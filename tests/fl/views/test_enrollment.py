"""Enrolment: a token is shown once, awaited, and withdrawn; who waits is let in."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from edge.protocol.enrollment import parse_token
from fl import devices
from fl.lifecycle import DeviceState
from fl.models import EnrollmentToken
from fl.qr import qr_code
from fl.views.enrollment import is_safe
from tests.builders import participant
from tests.fl.views.answers import text_of

pytestmark = pytest.mark.django_db


def issued(client, **headers):
    answer = client.post(reverse("enroll-device"), {"label": "clinic", "lifetime": "900"}, **headers)
    command = re.search(r'id="enroll-command">([^<]+)<', answer.content.decode())[1]
    return answer, command, re.search(r"--token (\S+)", command)[1]


def token_of(device):
    return EnrollmentToken.objects.get(device=device)


def awaited(client, token):
    page = client.get(f"{reverse('enroll-device')}?token={token.pk}&pieces=1").content.decode()
    return re.search(r'data-piece="awaited" data-state="(\w+)"', page)[1]


def test_a_token_is_shown_once_with_the_command_to_copy(operator):
    answer, command, shown = issued(operator)
    again = operator.get(reverse("enroll-device"))

    token = EnrollmentToken.objects.get()
    assert parse_token(shown).id == token.token_id
    assert command.startswith("qflare-edge enroll http://testserver --token ")
    assert "no-store" in answer.headers["Cache-Control"]
    assert token.expires_at - token.created_at == timedelta(minutes=15)
    assert parse_token(shown).secret not in again.content.decode()
    assert token.token_id in text_of(again)


def test_the_token_is_a_qr_code_too_made_on_this_server(operator):
    answer, _, shown = issued(operator)

    drawn = re.search(r'<svg class="qr".*?<path d="([^"]+)"', answer.content.decode(), re.DOTALL)[1]
    assert drawn == qr_code(shown).path


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://learning.example", True),
        ("http://127.0.0.1:8000", True),
        ("http://localhost:8000", True),
        ("http://[::1]:8000", True),
        ("http://192.168.1.5:8000", False),
        ("http://learning.example", False),
        ("nonsense", False),
    ],
)
def test_a_token_may_go_by_tls_or_within_the_machine(address, safe):
    assert is_safe(address) is safe


def test_an_address_to_which_no_device_sends_its_token_is_warned_of(operator, settings):
    settings.ALLOWED_HOSTS = ["learning.example", "127.0.0.1"]
    warning = "a device does not send it there"

    assert warning in text_of(issued(operator, HTTP_HOST="learning.example")[0])
    assert warning not in text_of(issued(operator, HTTP_HOST="127.0.0.1:8000")[0])
    secure = operator.post(reverse("enroll-device"), {"lifetime": "900"}, HTTP_HOST="learning.example", secure=True)
    assert warning not in text_of(secure)
    assert "enroll https://learning.example --token" in text_of(secure)


def test_what_becomes_of_a_token_is_told_step_by_step(operator):
    now = timezone.now()
    waiting, _ = devices.issue_token(
        label="a", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now
    )
    expired, _ = devices.issue_token(
        label="b", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now - timedelta(hours=2)
    )
    new = participant("new", auto_approve=False, now=now)
    device = participant("clinic", now=now)

    assert awaited(operator, waiting) == "waiting"
    assert awaited(operator, expired) == "expired"
    assert awaited(operator, token_of(new.device)) == "pending"
    assert awaited(operator, token_of(device.device)) == "offline"
    device.connect(now)
    assert awaited(operator, token_of(device.device)) == "online"
    assert "clinic connected." in text_of(operator.get(f"/devices/enrol/?token={token_of(device.device).pk}"))
    devices.suspend(device=device.device, reason="", now=now, by=None)
    assert awaited(operator, token_of(device.device)) == "suspended"


@pytest.mark.parametrize("token", ["99", "x", "-1", "9" * 30])
def test_a_token_that_there_is_not_is_not_awaited(operator, token):
    page = operator.get(f"/devices/enrol/?token={token}")

    assert page.status_code == 200
    assert 'data-piece="awaited"' not in page.content.decode()


def test_who_came_lately_is_listed_with_the_token(operator):
    participant("clinic", now=timezone.now())

    page = text_of(operator.get(reverse("enroll-device")))

    assert re.search(r"Let in lately clinic by token \w+", page)


def test_an_operator_withdraws_a_token(operator):
    issued(operator)
    token = EnrollmentToken.objects.get()

    answer = operator.post(reverse("withdraw-token", args=[token.pk]))

    assert answer.url == reverse("enroll-device")
    assert not EnrollmentToken.objects.exists()


def test_a_token_that_was_used_cannot_be_withdrawn(operator):
    device = participant("clinic").device

    page = operator.post(reverse("withdraw-token", args=[token_of(device).pk]), follow=True)

    assert "was used or withdrawn already." in text_of(page)
    assert token_of(device)


def test_a_viewer_withdraws_nothing(viewer):
    token, _ = devices.issue_token(
        label="", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=timezone.now()
    )

    assert viewer.post(reverse("withdraw-token", args=[token.pk])).status_code == 403
    assert EnrollmentToken.objects.exists()


def test_a_device_that_waits_is_approved_by_a_button(operator):
    waiting = participant("clinic", auto_approve=False).device

    page = text_of(operator.get(reverse("enroll-device")))
    answer = operator.post(reverse("command-device", args=[waiting.pk, "approve"]), {"next": "/devices/enrol/"})

    waiting.refresh_from_db()
    assert "Approve clinic" in page
    assert waiting.state == DeviceState.ACTIVE
    assert answer.url == "/devices/enrol/"
