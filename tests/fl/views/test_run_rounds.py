"""The rounds of a run and one round: whole without scripts, what went wrong first, few queries however many rows."""

import re

import pytest
from django.urls import reverse

from fl.exceptions import UpdateRefused
from tests.builders import at, fleet, started_run, step
from tests.fl.views.answers import after_one_round, state_of, text_of
from tests.fl.views.counting import queries_of
from tests.fl.views.long_runs import long_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def troubled():
    """A run whose round 1 has an update of each kind: rejected, late and accepted."""
    devices = fleet(3)
    run = started_run(cohort_size=3, quorum=1, rounds=1)
    step(run)
    rejected, accepted, late = devices
    with pytest.raises(UpdateRefused):
        rejected.send(num_examples=0)
    accepted.send()
    step(run, at(61))
    late.send(now=at(62))
    return run, devices


def test_all_rounds_are_listed_newest_first_down_to_the_initial_evaluation(viewer):
    run = after_one_round()

    response = viewer.get(reverse("run-rounds", args=[run.pk]))

    page = text_of(response)
    model = run.models.get(version=1)
    assert re.findall(r'<tr data-key="(\d+)" data-state="(\w+)"', response.content.decode()) == [
        ("2", "training"),
        ("1", "completed"),
        ("0", "initial"),
    ]
    assert f"{model.metrics['loss']:.4f}" in page
    assert "2 rounds" in page


def test_a_round_of_a_task_that_the_server_has_no_data_of_shows_the_devices_means(viewer):
    run = after_one_round()
    run.models.update(metrics=None)
    run.round_set.filter(number=1).update(device_metrics={"accuracy": {"mean": 0.5, "p10": 0.25, "p90": 0.75}})

    page = text_of(viewer.get(reverse("run-rounds", args=[run.pk])))

    assert "50.00 % on devices" in page
    assert "25.00 % – 75.00 %" in page


def test_rounds_are_filtered_by_state_and_an_unknown_state_filters_nothing(viewer):
    run = after_one_round()
    address = reverse("run-rounds", args=[run.pk])

    assert [line["number"] for line in state_of(viewer.get(address, {"state": "completed"}))["rounds"]] == [1]
    assert [line["number"] for line in state_of(viewer.get(address, {"state": "bogus"}))["rounds"]] == [2, 1, 0]
    assert "No round is in this state." in text_of(viewer.get(address, {"state": "failed"}))


def test_fifty_rounds_are_on_a_page_and_the_filter_is_kept_as_pages_turn(viewer):
    run = long_run(rounds=120, devices=1)
    address = reverse("run-rounds", args=[run.pk])

    first = viewer.get(address, {"state": "completed"})
    last = viewer.get(address, {"page": 3})

    assert [line["number"] for line in state_of(first)["rounds"]] == list(range(120, 70, -1))
    assert "?state=completed&amp;page=2" in first.content.decode()
    assert [line["number"] for line in state_of(last)["rounds"]] == list(range(20, -1, -1))


@pytest.mark.parametrize("page", ["0", "-1", "x", "99999999999999999999", "999999999"])
def test_a_page_that_cannot_be_is_no_error(viewer, page):
    run = after_one_round()

    assert viewer.get(reverse("run-rounds", args=[run.pk]), {"page": page}).status_code == 200
    assert viewer.get(reverse("run-round", args=[run.pk, 1]), {"page": page}).status_code == 200


def test_a_round_shows_what_went_wrong_first_with_the_reasons_stored(viewer, troubled):
    run, (rejected, accepted, late) = troubled

    response = viewer.get(reverse("run-round", args=[run.pk, 1]))

    page = text_of(response)
    shown = re.findall(r'<tr data-key="\d+" data-state="(\w+)"', response.content.decode())
    assert shown == ["rejected", "late", "accepted"]
    assert rejected.assignment().update.reason in page
    assert rejected.assignment().update.code in page
    assert late.assignment().reason in page
    assert f"{accepted.assignment().update.norm:.4f}" in page
    assert f'href="/devices/{rejected.device.pk}/"' in response.content.decode()


def test_what_no_update_said_is_not_shown_as_a_number(viewer, troubled):
    run, (rejected, *_) = troubled

    response = viewer.get(reverse("run-round", args=[run.pk, 1]))

    row = re.search(rf'<tr data-key="{rejected.assignment().pk}".*?</tr>', response.content.decode(), re.DOTALL)[0]
    assert "0 B" not in row
    assert ">0<" not in row


def test_rounds_lead_to_their_neighbours(viewer):
    run = after_one_round()

    first = viewer.get(reverse("run-round", args=[run.pk, 1])).content.decode()
    second = viewer.get(reverse("run-round", args=[run.pk, 2])).content.decode()

    assert ("Previous round" in first, "Next round" in first) == (False, True)
    assert ("Previous round" in second, "Next round" in second) == (True, False)


def test_the_open_round_carries_its_devices_progress_for_the_scripts(viewer):
    fleet(2)
    run = started_run()
    step(run)

    state = state_of(viewer.get(reverse("run-round", args=[run.pk, 1])))

    assert [part["phase"] for part in state["progress"]] == ["assigned", "assigned"]
    assert state["rounds"][0]["selected"] == 2
    assert state["runs"][0]["round"] == 1


@pytest.mark.parametrize("name", ["run-rounds", "run-round"])
def test_a_run_or_round_that_is_not_there_is_not_found(viewer, name):
    run = after_one_round()
    wrong = [999] if name == "run-rounds" else [run.pk, 99]

    assert viewer.get(reverse(name, args=wrong)).status_code == 404


@pytest.mark.parametrize(("name", "rest"), [("run-rounds", []), ("run-round", [5])])
def test_a_page_takes_as_many_queries_for_a_thousand_rounds_as_for_sixty(viewer, name, rest):
    few = long_run(rounds=60, devices=2)
    many = long_run(rounds=1000, devices=20, prefix="other")

    taken = [queries_of(viewer, reverse(name, args=[run.pk, *rest])) for run in (few, many)]

    assert taken[0] == taken[1]
    assert taken[1] <= 12
