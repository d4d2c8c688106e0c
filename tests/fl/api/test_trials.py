"""A test event by REST: for admins, and once for each key."""

import pytest

from fl.models import Event
from tests.fl.api.conftest import error_of

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/test-events/"


def test_an_admin_sends_a_test_event(admin):
    response = admin.post(ADDRESS)

    assert response.status_code == 201
    assert response.json()["title"] == "Test event from admin"
    assert [(event.stream_id, event.event) for event in Event.objects.all()] == [("system", "error_notification")]


def test_the_same_key_sends_it_once(admin):
    first, second = (admin.post(ADDRESS, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert first.json() == second.json()
    assert Event.objects.count() == 1


@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_others_are_refused(signed_in, role):
    response = signed_in(role).post(ADDRESS)

    assert (response.status_code, error_of(response)) == (403, "not_allowed")
    assert not Event.objects.exists()


def test_nobody_in_particular_is_asked_to_sign_in(anybody):
    assert anybody.post(ADDRESS).status_code == 401
