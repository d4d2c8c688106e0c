"""The overview and a run's page: complete without scripts, and true to the database at the positions they carry."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fl import runs
from fl.lifecycle import RunState
from fl.models import Event, Run, Stream
from tests.builders import NOW, fleet, participant, started_run, step
from tests.fl.views.answers import after_one_round, plan_named, state_of, text_of

pytestmark = pytest.mark.django_db


def test_the_button_that_extends_a_deadline_is_there_while_a_round_trains(operator):
    fleet(2)
    run = started_run()
    waiting = form_in(operator.get("/"))

    step(run)
    training = form_in(operator.get("/"))

    assert "hidden" in waiting
    assert "hidden" not in training
    assert f'action="{reverse("extend-deadline", args=[run.pk])}"' in training


def form_in(page):
    """Return the tag of the form that extends a deadline."""
    return re.search(r'<form[^>]*data-command="extend-deadline"[^>]*>', page.content.decode())[0]


def test_without_a_run_the_overview_is_a_guide(viewer):
    page = text_of(viewer.get("/"))

    assert "Your server is ready" in page
    assert "Start the demo run" not in page


def test_the_demo_button_is_there_once_a_device_that_offers_its_task_is_online(operator):
    participant("clinic", task="digits").connect()

    page = operator.get("/").content.decode()

    form = re.search(r"<form[^>]*data-demo[^>]*>", page)[0]
    assert "hidden" not in form


def test_the_demo_button_starts_a_run_of_the_devices_that_are_there(operator):
    for name in ("clinic", "gateway"):
        participant(name, task="digits").connect()

    response = operator.post(reverse("start-demo"))

    run = Run.objects.get()
    assert response.url == reverse("run", args=[run.pk])
    assert (run.task, run.cohort_size, run.rounds, run.state) == ("digits", 2, 20, RunState.RUNNING)
    assert run.created_by.username == "omar"


def test_the_demo_without_a_device_says_what_is_missing(operator):
    page = operator.post(reverse("start-demo"), follow=True)

    assert "No device that offers the task digits is online. Enrol a device, start it, and try again." in text_of(page)
    assert not Run.objects.exists()


def test_a_run_is_shown_whole_without_scripts(viewer):
    run = after_one_round()

    page = text_of(viewer.get("/"))

    model = run.models.get(version=1)
    assert f"Loss {model.metrics['loss']:.4f}" in page
    assert "Round 2 of 2" in page
    assert f"Round {run.label}" not in page
    assert "2 of 2 online" in page
    assert "Round 1 is completed" in page


def test_what_was_not_measured_is_not_shown_as_a_number(viewer):
    run = started_run()
    run.models.update(metrics=None)

    page = text_of(viewer.get("/"))

    assert "not evaluated here" in page


def test_a_metric_that_is_not_finite_is_null_for_the_scripts(viewer):
    run = started_run()
    run.models.update(metrics={"loss": None, "accuracy": None})

    initial, _ = state_of(viewer.get("/"))["rounds"]

    assert initial["metrics"] == {"loss": None, "accuracy": None}


def test_the_page_carries_the_positions_it_was_rendered_at(viewer):
    run = after_one_round()

    state = state_of(viewer.get("/"))

    for name in (run.stream, "system"):
        stream = Stream.objects.get(pk=name)
        assert state["positions"][name] == {"epoch": stream.epoch, "seq": stream.head}


def test_a_page_carries_no_position_of_a_devices_own_stream(admin):
    participant("clinic")

    assert not [name for name in state_of(admin.get("/"))["positions"] if name.startswith("device:")]


def test_the_overview_takes_at_most_twelve_queries_however_much_there_is(viewer):
    after_one_round()
    for number in range(12):
        runs.create_run(plan=plan_named(f"run {number}"), created_by=None, now=NOW)
    fleet(8)

    with CaptureQueriesContext(connection) as captured:
        viewer.get("/")

    statements = [query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))]
    assert len(statements) <= 12, "\n".join(statements)


def test_the_overview_shows_the_newest_open_run_and_another_one_on_request(viewer):
    older = started_run(name="older")
    done = started_run(name="done")
    runs.stop_run(run=done, now=NOW)

    assert state_of(viewer.get("/"))["run_id"] == older.pk
    assert state_of(viewer.get(f"/?run={done.pk}"))["run_id"] == done.pk
    assert viewer.get("/?run=999").status_code == 404


def test_the_feed_tells_each_change_of_a_run_once(viewer):
    run = after_one_round()

    told = state_of(viewer.get("/"))["told"]

    titles = [line["title"] for line in told if line["stream"] == run.stream]
    assert titles.count("Round 1 started") == 1
    assert Event.objects.filter(stream=run.stream, event="fl_status_update").count() > len(titles) / 2
