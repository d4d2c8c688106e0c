"""Every error under /api/ has one shape."""

import pytest

from fl import runs
from fl.api.errors import STATUS, status_of
from fl.exceptions import DeviceBarred, FlError, LostRace, TaskUnavailable, TooLarge, UpdateRefused
from tests.fl.api.conftest import Client, error_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LostRace("x"), 409),
        (TaskUnavailable("x"), 422),
        (DeviceBarred("x"), 401),
        (UpdateRefused("x", code="wrong_shape"), 422),
        (TooLarge("x"), 413),
    ],
)
def test_the_nearest_class_decides_the_status(error, status):
    assert status_of(error) == status


def test_no_class_of_errors_is_without_a_status():
    classes = [FlError]
    for kind in classes:
        classes += kind.__subclasses__()

    assert all(any(above in STATUS for above in kind.__mro__) for kind in classes)


def test_an_address_that_does_not_exist_answers_404(anybody):
    response = anybody.get("/api/v1/nothing/")

    assert response.status_code == 404
    assert error_of(response) == "not_found"


def test_a_page_that_does_not_exist_is_no_json(anybody):
    response = anybody.get("/nothing/")

    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith("text/html")


def test_a_thing_that_does_not_exist_answers_404(viewer):
    for address in ("runs/7/", "runs/7/rounds/", "runs/7/models/", "devices/7/", "events/?stream=run:7"):
        response = viewer.get(f"/api/v1/{address}")

        assert (response.status_code, error_of(response)) == (404, "not_found"), address


def test_a_number_that_no_database_can_hold_answers_404(viewer):
    assert viewer.get(f"/api/v1/runs/{10**30}/").status_code == 404


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_method_that_an_address_does_not_take_answers_405_whatever_the_role(viewer, method):
    response = getattr(viewer, method)("/api/v1/runs/")

    assert response.status_code == 405
    assert error_of(response) == "method_not_allowed"
    assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("body", ["{", '{"rounds": NaN}', ""])
def test_a_body_that_cannot_be_read_answers_400_or_422(operator, body):
    response = operator.post("/api/v1/runs/", body)

    assert (response.status_code, error_of(response)) in [(400, "parse_error"), (422, "invalid")]


def test_a_body_that_is_no_json_answers_415(operator):
    response = operator.post("/api/v1/runs/", "name=a+form", content_type="application/x-www-form-urlencoded")

    assert response.status_code == 415
    assert error_of(response) == "unsupported_media_type"


def test_values_that_cannot_be_answer_422_and_name_each_field(operator):
    wrong = {"name": "a run", "rounds": "many", "strategy_config": {"mu": "much"}}

    response = operator.post("/api/v1/runs/", wrong)

    assert response.status_code == 422
    assert error_of(response) == "invalid"
    message = response.json()["error"]["message"]
    assert "rounds: " in message
    assert "strategy_config.mu: " in message
    assert "task: " in message


def test_a_list_where_an_object_belongs_answers_422(operator):
    response = operator.post("/api/v1/runs/", "[1]")

    assert (response.status_code, error_of(response)) == (422, "invalid")


def test_an_unexpected_failure_answers_500_without_its_details(operator, training, settings):
    run, _ = training
    # A folder where the model's file should be: nothing in the program expects that.
    path = settings.MEDIA_ROOT / run.models.get().file
    path.unlink()
    path.mkdir()
    operator.raise_request_exception = False

    response = operator.get(f"/api/v1/runs/{run.pk}/models/0/weights/")

    assert response.status_code == 500
    assert error_of(response) == "server_error"
    assert str(settings.MEDIA_ROOT) not in response.content.decode()


def test_a_move_that_the_state_does_not_allow_answers_409(operator, training):
    run, _ = training
    runs.stop_run(run=run, now=run.created_at)

    response = operator.post(f"/api/v1/runs/{run.pk}/start/")

    assert response.status_code == 409
    assert error_of(response) == "wrong_move"
    assert "stopped" in response.json()["error"]["message"]


def test_a_form_of_another_site_is_refused(signed_in):
    person = signed_in("operator")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = person.cookies

    response = strict.post("/api/v1/runs/", {"name": "x", "task": "linear"})

    assert response.status_code == 403
    assert error_of(response) == "permission_denied"
    assert "CSRF" in response.json()["error"]["message"]
