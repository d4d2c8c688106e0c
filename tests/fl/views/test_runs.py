"""The list of runs, the form of a new one, and commands by form."""

import pytest
from django.urls import reverse

from fl import runs
from fl.lifecycle import RunState
from fl.models import Run
from tests.builders import NOW, fleet, started_run, step
from tests.fl.views.answers import plan_named, text_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("before", "command", "after"),
    [
        (RunState.PENDING, "start", RunState.RUNNING),
        (RunState.RUNNING, "pause", RunState.PAUSED),
        (RunState.PAUSED, "resume", RunState.RUNNING),
    ],
)
def test_a_command_by_form_moves_the_run_and_goes_back(operator, before, command, after):
    run = runs.create_run(plan=plan_named("a run"), created_by=None, now=NOW)
    if before != RunState.PENDING:
        runs.start_run(run=run, now=NOW)
    if before == RunState.PAUSED:
        runs.pause_run(run=run, now=NOW)

    response = operator.post(reverse("command-run", args=[run.pk, command]), {"next": "/?run=1"})

    run.refresh_from_db()
    assert run.state == after
    assert response.url == "/?run=1"


def test_a_command_that_cannot_be_says_why(operator):
    run = runs.create_run(plan=plan_named("a run"), created_by=None, now=NOW)

    page = operator.post(reverse("command-run", args=[run.pk, "pause"]), follow=True)

    assert f"Run {run.label} is pending and cannot become paused." in text_of(page)


def test_nobody_is_sent_to_another_host_after_a_command(operator):
    run = runs.create_run(plan=plan_named("a run"), created_by=None, now=NOW)

    response = operator.post(reverse("command-run", args=[run.pk, "start"]), {"next": "https://example.org/"})

    assert response.url == reverse("run", args=[run.pk])


def test_stopping_asks_when_and_does_that(operator):
    first, _ = fleet(2)
    run = started_run()
    step(run)

    asked = text_of(operator.get(reverse("stop-run", args=[run.pk])))
    operator.post(reverse("stop-run", args=[run.pk]), {"when": "after-round"})
    run.refresh_from_db()
    waits = (run.state, run.stop_after_round)
    operator.post(reverse("stop-run", args=[run.pk]), {"when": "now"})

    run.refresh_from_db()
    assert "After this round" in asked
    assert waits == (RunState.RUNNING, True)
    assert run.state == RunState.STOPPED
    assert first.assignment().state == "cancelled"


def test_the_list_of_runs_filters_and_turns_pages(viewer):
    for number in range(27):
        runs.create_run(plan=plan_named(f"run-{number:02d}"), created_by=None, now=NOW)
    stopped = started_run(name="the stopped one")
    runs.stop_run(run=stopped, now=NOW)

    assert "run-02" not in text_of(viewer.get("/runs/"))
    assert "run-02" in text_of(viewer.get("/runs/?page=2"))
    filtered = text_of(viewer.get("/runs/?state=stopped"))
    assert "the stopped one" in filtered
    assert "run-26" not in filtered


def form_values(**changes):
    """Return what the form of a new run posts when only a name was typed."""
    values = {
        "name": "winter",
        "task": "linear",
        "strategy": "fedavg",
        "rounds": 3,
        "cohort_size": 2,
        "cohort_wait_seconds": 30,
        "deadline_seconds": 600,
        "min_examples": 1,
        "seed": 5,
    }
    return {**values, **changes}


def test_a_new_run_takes_the_tasks_own_settings_where_the_form_is_empty(operator):
    response = operator.post(reverse("new-run"), form_values(start="on"))

    run = Run.objects.get()
    assert response.url == reverse("run", args=[run.pk])
    assert (run.name, run.quorum, run.seed, run.state) == ("winter", 2, 5, RunState.RUNNING)
    assert run.local_epochs >= 1


def test_a_new_run_takes_the_parameters_of_its_own_strategy_alone(operator):
    operator.post(
        reverse("new-run"), form_values(strategy="fedprox", **{"fedprox-mu": "0.25", "fedavgm-momentum": "0.5"})
    )

    run = Run.objects.get()
    assert run.strategy_config["mu"] == 0.25
    assert set(run.strategy_config) == {"mu"}
    assert run.state == RunState.PENDING


def test_a_run_that_cannot_be_is_refused_with_the_reason(operator):
    page = operator.post(reverse("new-run"), form_values(quorum=5))

    assert "A quorum of 5 can never be met by a cohort of 2. Lower the quorum or raise cohort_size." in text_of(page)
    assert not Run.objects.exists()
