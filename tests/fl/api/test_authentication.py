"""A device comes by its token, a person by a session, and neither passes for the other."""

from datetime import timedelta

import pytest
from django.utils import timezone

from fl import devices
from tests.builders import participant
from tests.fl.api.conftest import bearer, error_of

pytestmark = pytest.mark.django_db


def give_up(client, headers):
    """Give up an assignment that does not exist: 404 once one is let in."""
    return client.post("/api/v1/assignments/0/failure/", {"reason": "none"}, headers=headers)


def test_a_device_is_let_in_by_its_token(anybody):
    response = give_up(anybody, bearer(participant()))

    assert response.status_code == 404


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer x.y.z", "bearer nonsense"])
def test_a_token_that_is_none_answers_401(anybody, header):
    response = give_up(anybody, {"Authorization": header})

    assert response.status_code == 401
    assert error_of(response) == "not_authenticated"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_past_its_time_says_so(anybody):
    response = give_up(anybody, bearer(participant(), now=timezone.now() - timedelta(hours=1)))

    assert (response.status_code, error_of(response)) == (401, "token_expired")


def test_the_state_of_a_device_counts_at_each_request(anybody):
    device = participant()
    headers = bearer(device)
    assert give_up(anybody, headers).status_code == 404

    devices.suspend(device=device.device, reason="", now=timezone.now(), by=None)

    response = give_up(anybody, headers)
    assert (response.status_code, error_of(response)) == (401, "device_barred")


def test_no_token_answers_401(anybody):
    response = give_up(anybody, {})

    assert (response.status_code, error_of(response)) == (401, "not_authenticated")


def test_an_admin_is_no_device(admin):
    assert give_up(admin, {}).status_code == 401


def test_a_device_is_no_person(anybody):
    headers = bearer(participant())

    for address in ("runs", "devices", "tasks", "enrollment-tokens"):
        response = anybody.get(f"/api/v1/{address}/", headers=headers)

        assert (response.status_code, error_of(response)) == (403, "not_allowed"), address


def test_a_token_decides_over_a_session(admin):
    assert admin.get("/api/v1/runs/", headers=bearer(participant())).status_code == 403
