"""Signing in and out."""

import pytest
from django.urls import reverse

from fl import people
from tests.builders import person
from tests.fl.views.answers import text_of

pytestmark = pytest.mark.django_db


def test_a_code_is_exchanged_for_a_session_by_post_once(client):
    user = person("demo", "admin")
    code = people.issue_sign_in_code(user=user, now=_clock())

    first = client.post(reverse("sign-in"), {"code": code})
    signed_in = client.get("/").status_code
    client.logout()
    second = client.post(reverse("sign-in"), {"code": code})

    assert first.url == "/"
    assert signed_in == 200
    assert second.status_code == 403
    assert "This sign-in link is not valid." in text_of(second)
    assert client.get("/").status_code == 302


def test_a_code_in_an_address_signs_nobody_in(client):
    code = people.issue_sign_in_code(user=person("demo", "admin"), now=_clock())

    client.get(reverse("sign-in"), {"code": code})

    assert client.get("/").status_code == 302


def test_signing_in_by_code_needs_the_pages_own_token(client):
    client.handler.enforce_csrf_checks = True
    code = people.issue_sign_in_code(user=person("demo", "admin"), now=_clock())

    assert client.post(reverse("sign-in"), {"code": code}).status_code == 403
    assert client.get("/").status_code == 302


def test_a_password_signs_in_and_leads_back(client):
    person("vera", "viewer")

    response = client.post(
        "/login/?next=/devices/", {"username": "vera", "password": "correct horse battery staple", "next": "/devices/"}
    )

    assert response.url == "/devices/"


def test_signing_out_is_a_post(viewer):
    assert viewer.get(reverse("logout")).status_code == 405
    viewer.post(reverse("logout"))

    assert viewer.get("/").status_code == 302


def _clock():
    from django.utils import timezone

    return timezone.now()
