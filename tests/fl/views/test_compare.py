"""Compare as a page: complete without scripts, and its links keep what is compared."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fl.models import GlobalModel
from tests.builders import started_run
from tests.fl.views.answers import after_one_round, state_of, text_of
from tests.fl.views.long_runs import long_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def two():
    return after_one_round(), started_run(name="another", seed=99)


def address(*runs, more=""):
    return "/compare/?" + "&".join(f"run={run.pk}" for run in runs) + more


def test_two_runs_are_shown_with_best_and_last(viewer, two):
    run, other = two

    page = text_of(viewer.get(address(*two)))

    best, last = (pick(model.metrics["loss"] for model in run.models.all()) for pick in (min, lambda all_: [*all_][-1]))
    assert run.label in page
    assert other.label in page
    assert f"{best:.4f}" in page
    assert f"{last:.4f}" in page


def test_only_settings_that_differ_are_shown_unless_all_are_asked_for(viewer, two):
    differing = viewer.get(address(*two)).content.decode()
    everything = viewer.get(address(*two, more="&all=1")).content.decode()

    names = re.findall(r'<tr class="differs"><th scope="row">([^<]+)', differing)
    assert names == ["Seed"]
    assert "Learning rate" not in differing
    assert "Learning rate" in everything
    assert re.findall(r'<tr class="differs"><th scope="row">([^<]+)', everything) == names


def test_runs_that_agree_say_that_no_setting_differs(viewer, two):
    assert "No setting differs." in text_of(viewer.get(address(two[0], started_run())))


def test_the_scripts_start_from_every_point_and_each_runs_position(viewer, two):
    state = state_of(viewer.get(address(*two)))

    assert [curve["run_id"] for curve in state["curves"]] == [run.pk for run in two]
    assert state["curves"][0]["rounds"] == [0, 1]
    assert {run.stream for run in two} <= set(state["positions"])


def test_four_runs_of_ten_thousand_rounds_make_a_page_that_is_light_and_leave_no_round_out(viewer):
    runs = [long_run(10_000, 0, prefix=f"device-{number}") for number in range(4)]
    GlobalModel.objects.update(metrics={"accuracy": 0.7123456789012345, "loss": 0.3123456789012345})

    page = viewer.get(address(*runs))

    assert len(page.content) < 300_000
    for curve in state_of(page)["curves"]:
        assert (curve["first"][0], curve["rounds"][-1]) == (0, 10_000)
        assert curve["first"][1:] == [last + 1 for last in curve["rounds"][:-1]]
    assert "9901 older ones" in text_of(page)


def test_the_view_stands_in_the_address_and_its_links_keep_it(viewer, two):
    page = viewer.get(address(*two, more="&x=time&metric=loss&all=1")).content.decode()

    query = f"run={two[0].pk}&amp;run={two[1].pk}"
    assert 'data-x="time"' in page
    assert 'data-plot="loss"' in page
    assert 'data-plot="accuracy"' not in page
    assert f'href="?{query}&amp;metric=loss&amp;all=1"' in page
    assert f'href="?run={two[1].pk}&amp;x=time&amp;metric=loss&amp;all=1"' in page


def test_nonsense_in_the_address_shows_the_usual_view(viewer, two):
    page = viewer.get(address(*two, more="&x=up&metric=x&all=2&run=%00")).content.decode()

    assert 'data-x="round"' in page
    assert 'data-plot="accuracy"' in page


def test_runs_that_are_left_out_are_named(viewer, two):
    page = text_of(viewer.get(address(*two, more="&run=999")))

    assert "Left out: there is no run “999”, or none that you may see." in page


def test_without_runs_one_is_asked_which(viewer, two):
    page = viewer.get("/compare/")

    assert "Which runs?" in text_of(page)
    assert page.content.decode().count('name="run"') == 2


def test_comparing_takes_few_queries_however_many_runs(viewer, two):
    more = [started_run() for _ in range(4)]

    with CaptureQueriesContext(connection) as captured:
        viewer.get(address(*two, *more))

    statements = [query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))]
    assert len(statements) <= 12, "\n".join(statements)
