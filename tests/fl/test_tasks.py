"""What the server has of a task: looked up once, and named the same on both sides."""

import pytest

from edge.tasks import available_tasks, find_task, task_digest
from fl.exceptions import TaskUnavailable
from fl.tasks import digest_of_task, spec_of_task, task_named, task_names
from fl.tasks import test_examples_of as examples_for_testing


def test_a_task_is_looked_up_once():
    assert task_named("linear") is task_named("linear")
    assert examples_for_testing("linear") is examples_for_testing("linear")


def test_the_digest_is_the_one_that_a_device_offers():
    assert digest_of_task("linear") == task_digest(find_task("linear"))
    assert digest_of_task("linear") != digest_of_task("digits")


def test_the_spec_names_every_tensor():
    assert {name: tensor.shape for name, tensor in spec_of_task("linear").items()} == {"weight": (1, 4), "bias": (1,)}


def test_an_unknown_task_is_unavailable_each_time_it_is_asked_for():
    for _ in range(2):
        with pytest.raises(TaskUnavailable) as refusal:
            task_named("alchemy")
        assert refusal.value.field == "task"
        assert "digits" in refusal.value.message


def test_all_tasks_are_listed_in_order():
    assert task_names() == sorted(available_tasks())
    assert {"digits", "linear"} <= set(task_names())
