"""What a run can be made of, over REST."""

import pytest
from django.utils import timezone

from fl.strategies import STRATEGIES
from tests.builders import fleet, participant

pytestmark = pytest.mark.django_db


def linear(client, query=""):
    tasks = {task["name"]: task for task in client.get(f"/api/v1/tasks/{query}").json()}
    return tasks["linear"]


def test_a_task_tells_what_a_run_of_it_starts_from(viewer):
    task = linear(viewer)

    assert task["num_parameters"] == 5
    assert task["defaults"] == {"local_epochs": 1, "batch_size": 16, "learning_rate": 0.05, "momentum": 0.0}
    assert task["supports"] == ["proximal"]
    assert len(task["digest"]) == 64


def test_a_task_tells_how_many_devices_qualify_now(viewer):
    now = timezone.now()
    fleet(2, now=now)
    participant().connect(now, num_examples=5)
    participant().connect(now, digest="0" * 64)
    participant()

    assert linear(viewer)["qualified_devices"] == 3
    assert linear(viewer, "?min_examples=6")["qualified_devices"] == 2


def test_a_device_at_work_does_not_qualify(viewer, training):
    assert linear(viewer)["qualified_devices"] == 0


def test_every_strategy_tells_its_parameters_and_what_it_needs(viewer):
    strategies = {strategy["name"]: strategy for strategy in viewer.get("/api/v1/strategies/").json()}

    assert list(strategies) == list(STRATEGIES)
    (mu,) = strategies["fedprox"]["parameters"]
    assert (mu["name"], mu["minimum"]) == ("mu", 0.0)
    assert mu["help"]
    assert strategies["fedprox"]["requires"] == ["proximal"]
    assert strategies["fedavg"]["requires"] == []


def test_steps_are_listed(viewer):
    (clip,) = viewer.get("/api/v1/steps/").json()

    assert (clip["name"], clip["parameters"][0]["name"]) == ("clip_norm", "max_norm")


def test_one_is_told_who_qualifies_for_a_run_and_who_nearly_does(viewer, training):
    now = timezone.now()
    participant(now=now).connect(now, num_examples=5)
    fleet(1, now=now)

    answer = viewer.get("/api/v1/devices/qualifying/?task=linear&strategy=fedprox&min_examples=6")

    assert answer.json() == {"qualified": 1, "at_work": 2, "too_few_examples": 1}


@pytest.mark.parametrize("query", ["", "?task=alchemy", "?task=linear&min_examples=x", "?task=linear&strategy=magic"])
def test_who_qualifies_for_a_run_that_cannot_be_is_not_told(viewer, query):
    assert viewer.get(f"/api/v1/devices/qualifying/{query}").status_code == 422


def test_who_qualifies_is_for_those_who_may_read(anybody, signed_in):
    assert anybody.get("/api/v1/devices/qualifying/?task=linear").status_code == 401
    assert signed_in("").get("/api/v1/devices/qualifying/?task=linear").status_code == 403
