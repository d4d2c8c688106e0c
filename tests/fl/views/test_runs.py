"""The forms of a new run and of an old one's name, and commands by form."""

import html
import re
from dataclasses import fields

import pytest
from django.urls import reverse
from django.utils import timezone

from edge.tasks import TASKS
from fl import runs
from fl.lifecycle import RunState
from fl.models import Run
from tests.builders import NOW, at, current_round, fleet, participant, person, started_run, step
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


def test_a_deadline_is_extended_by_form(operator):
    fleet(2)
    run = started_run()
    step(run)

    response = operator.post(reverse("extend-deadline", args=[run.pk]), {"seconds": "60", "next": "/?run=1"})

    assert response.url == "/?run=1"
    # The round's first deadline has passed long since, by the clock of the one who asks.
    assert current_round(run).deadline_at > max(timezone.now(), at(60))


@pytest.mark.parametrize(("seconds", "why"), [("", "more than 0 s"), ("9" * 6, "at most 86400 s")])
def test_an_extension_that_cannot_be_says_why(operator, seconds, why):
    fleet(2)
    run = started_run()
    step(run)

    page = operator.post(reverse("extend-deadline", args=[run.pk]), {"seconds": seconds}, follow=True)

    assert why in text_of(page)
    assert current_round(run).deadline_at == at(60)


def test_a_deadline_that_is_no_more_says_why(operator):
    run = started_run()

    page = operator.post(reverse("extend-deadline", args=[run.pk]), {"seconds": "60"}, follow=True)

    assert f"No round of run {run.label} is training." in text_of(page)


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


def field_of(response, name):
    """Return what stands around a field of a page: its label, itself, its error and its help."""
    found = re.search(rf'<p class="field[^>]*>(?:(?!</p>).)*name="{name}".*?</p>', response.content.decode(), re.DOTALL)
    return found[0]


def outlook_of(response):
    return re.search(r'data-outlook="(\w*)"', response.content.decode())[1]


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"quorum": 5}, "quorum", "A quorum of 5 can never be met by a cohort of 2."),
        ({"rounds": 0}, "rounds", "greater than or equal to 1"),
        ({"momentum": 1.5}, "momentum", "omentum must be in [0, 1)"),
        ({"learning_rate": 0}, "learning_rate", "earning_rate must be above 0"),
        ({"strategy": "fedprox", "fedprox-mu": 11}, "fedprox-mu", "less than or equal to 10"),
        ({"tags": ",".join("abcdefghijk")}, "tags", "11 tags are too many"),
        ({"tags": "x" * 41}, "tags", "at most 40 characters"),
        ({"name": ""}, "name", "required"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(operator, changes, field, reason):
    page = operator.post(reverse("new-run"), form_values(**changes))

    shown = field_of(page, field)
    assert "wrong" in shown
    assert reason in html.unescape(shown)
    assert not Run.objects.exists()


def test_a_task_that_cannot_do_what_the_strategy_needs_is_refused_at_the_strategy(operator, monkeypatch):
    monkeypatch.setattr(TASKS["linear"], "supports", frozenset())

    page = operator.post(reverse("new-run"), form_values(strategy="fedprox"))

    error = re.search(r'id="strategy-error">([^<]+)<', page.content.decode())[1]
    assert "The task linear cannot do what fedprox needs: proximal." in error


def test_a_wrong_parameter_of_another_strategy_is_nobodys_business(operator):
    operator.post(reverse("new-run"), form_values(**{"fedprox-mu": "-1", "step-clip_norm-max_norm": "x"}))

    assert Run.objects.get().strategy_config == {}


def test_a_new_run_takes_tags_notes_and_the_steps_that_are_ticked(operator):
    typed = {
        "tags": "clinic,  Winter ,clinic",
        "notes": " why ",
        "step-clip_norm": "on",
        "step-clip_norm-max_norm": "2.5",
    }

    operator.post(reverse("new-run"), form_values(**typed))

    run = Run.objects.get()
    assert (run.tags, run.notes) == (["clinic", "Winter"], "why")
    assert run.steps == [{"name": "clip_norm", "config": {"max_norm": 2.5}}]


def test_every_field_of_a_new_run_says_what_it_means(operator):
    page = operator.get(reverse("new-run"))

    for name in (
        "rounds",
        "cohort_size",
        "quorum",
        "min_examples",
        "local_epochs",
        "learning_rate",
        "seed",
        "fedyogi-tau",
    ):
        assert "_helptext" in field_of(page, name), name


@pytest.mark.parametrize(("cohort", "quorum", "expected"), [(2, "", "whole"), (3, "2", "smaller"), (4, "3", "wait")])
def test_the_form_tells_who_qualifies_for_what_was_typed_and_makes_nothing(operator, cohort, quorum, expected):
    now = timezone.now()
    fleet(2, now=now)
    participant(now=now).connect(now, num_examples=5)

    page = operator.post(reverse("new-run"), form_values(cohort_size=cohort, quorum=quorum, min_examples=6, check="1"))

    assert outlook_of(page) == expected
    assert "With too few examples 1" in text_of(page)
    assert not Run.objects.exists()


def test_too_few_devices_are_warned_of_and_not_refused(operator):
    page = operator.get(reverse("new-run"))
    answer = operator.post(reverse("new-run"), form_values())

    assert outlook_of(page) == "wait"
    assert answer.status_code == 302


def test_a_run_is_repeated_with_all_its_settings(operator):
    plan = runs.RunPlan(
        name="winter",
        task="linear",
        strategy="fedadam",
        rounds=7,
        cohort_size=5,
        quorum=3,
        seed=11,
        strategy_config={"eta": 0.25},
        steps=[{"name": "clip_norm", "config": {"max_norm": 3.5}}],
        local_epochs=2,
        batch_size=8,
        learning_rate=0.125,
        momentum=0.5,
        cohort_wait_seconds=12.5,
        deadline_seconds=77.0,
        min_examples=9,
        max_update_norm=4.5,
        public=True,
        keep_updates=True,
        tags=["clinic"],
        notes="why",
    )
    earlier = runs.create_run(plan=plan, created_by=None, now=NOW)

    form = operator.get(f"{reverse('new-run')}?from={earlier.label}").context["form"]
    typed = {bound.html_name: bound.value() for bound in form if bound.value() not in (None, False)}
    operator.post(reverse("new-run"), typed)

    repeated = Run.objects.latest("pk")
    assert repeated.name == "winter again"
    same = [field.name for field in fields(runs.RunPlan) if field.name != "name"]
    assert {name: getattr(repeated, name) for name in same} == {name: getattr(earlier, name) for name in same}


def test_what_of_an_earlier_run_is_not_here_any_more_is_said(operator):
    earlier = started_run()
    Run.objects.filter(pk=earlier.pk).update(task="alchemy", strategy="magic")

    page = operator.get(f"{reverse('new-run')}?from={earlier.pk}")

    assert "This server does not have the task alchemy any more." in text_of(page)
    assert "There is no strategy magic any more." in text_of(page)


@pytest.mark.parametrize("wanted", ["999", "x", "", "-1"])
def test_a_run_that_is_not_there_is_not_repeated(operator, wanted):
    page = operator.get(f"{reverse('new-run')}?from={wanted}")

    assert page.status_code == 200
    assert "Filled from" not in text_of(page)


# ── editing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_renames_tags_and_notes_a_run(operator):
    run = started_run()
    address = reverse("edit-run", args=[run.pk])

    answer = operator.post(address, {"name": "winter", "tags": "a, b", "notes": "look"})

    run.refresh_from_db()
    assert answer.url == reverse("run", args=[run.pk])
    assert (run.name, run.tags, run.notes) == ("winter", ["a", "b"], "look")
    assert 'value="a, b"' in operator.get(address).content.decode()


def test_a_description_that_cannot_be_is_refused_at_its_field(operator):
    run = started_run()

    page = operator.post(reverse("edit-run", args=[run.pk]), {"name": "", "tags": "x" * 41, "notes": ""})

    run.refresh_from_db()
    assert "wrong" in field_of(page, "name")
    assert run.name == "a run"


def test_viewers_do_not_edit_and_nobody_edits_what_is_not_there(viewer, client):
    run = started_run()

    refused = viewer.post(reverse("edit-run", args=[run.pk]), {"name": "mine"})
    client.force_login(person("olga", "operator"))

    assert refused.status_code == 403
    assert client.get(reverse("edit-run", args=[999])).status_code == 404
