"""Runs over REST."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from edge.weights import weights_digest
from edge.wire import decode
from fl import runs
from fl.models import AuditEntry, Event, GlobalModel, Run
from fl.models.audit import Act
from fl.tasks import spec_of_task
from tests.builders import PLAN, current_round, step
from tests.fl.api.conftest import error_of
from tests.fl.noted import noted_of

pytestmark = pytest.mark.django_db


def make(name="a run", **changes):
    return runs.create_run(plan=replace(PLAN, name=name, **changes), created_by=None, now=timezone.now())


@pytest.fixture
def trained(training):
    """A run whose first round is complete; its second round waits for devices."""
    run, participants = training
    now = timezone.now()
    for participant in participants:
        participant.send(now=now)
    first = current_round(run)
    while first.ended_at is None:
        step(run, now)
        first.refresh_from_db()
    run.refresh_from_db()
    return run


# ── making and steering ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_made_with_the_defaults_of_its_task_and_strategy(operator):
    response = operator.post("/api/v1/runs/", {"name": "first", "task": "linear", "strategy": "fedadam"})

    run = Run.objects.get()
    assert response.status_code == 201
    body = response.json()
    assert (body["id"], body["label"], body["state"]) == (run.pk, run.label, "pending")
    assert body["batch_size"] == 16
    assert body["strategy_config"] == run.strategy_config != {}
    assert body["actions"] == ["start", "stop_now"]
    assert body["created_by"] == "operator"
    assert (body["round"], body["model_version"], body["best_version"]) == (None, None, None)


def test_every_field_of_a_plan_can_be_given(operator):
    plan = {
        "name": "all of it",
        "task": "linear",
        "strategy": "fedprox",
        "rounds": 3,
        "cohort_size": 5,
        "quorum": 4,
        "seed": 11,
        "strategy_config": {"mu": 0.5},
        "steps": [{"name": "clip_norm", "config": {"max_norm": 2.0}}],
        "local_epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.1,
        "momentum": 0.5,
        "cohort_wait_seconds": 1.5,
        "deadline_seconds": 20.0,
        "min_examples": 10,
        "max_update_norm": 7.0,
        "public": True,
        "keep_updates": True,
        "tags": ["clinic", "winter"],
        "notes": "why",
    }

    body = operator.post("/api/v1/runs/", plan).json()

    assert {name: body[name] for name in plan} == plan


def test_a_field_that_no_run_has_is_refused_by_name(operator):
    response = operator.post("/api/v1/runs/", {"name": "x", "task": "linear", "dead_line_seconds": 5})

    assert (response.status_code, error_of(response)) == (422, "invalid")
    assert "dead_line_seconds" in response.json()["error"]["message"]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"task": "alchemy"}, "task_unavailable"),
        ({"strategy": "alchemy"}, "invalid_run"),
        ({"cohort_size": 2, "quorum": 3}, "invalid_run"),
        ({"rounds": 0}, "invalid_run"),
        ({"strategy_config": {"mu": 1.0}}, "invalid_run"),
        ({"seed": 2**70}, "invalid_run"),
        ({"seed": -1}, "invalid_run"),
    ],
)
def test_a_run_that_could_never_work_is_refused(operator, changes, code):
    response = operator.post("/api/v1/runs/", {"name": "x", "task": "linear", **changes})

    assert (response.status_code, error_of(response)) == (422, code)
    assert not Run.objects.exists()


def test_a_run_is_started_paused_resumed_and_stopped(operator):
    run = make()
    states = [
        operator.post(f"/api/v1/runs/{run.pk}/{command}/").json()["state"]
        for command in ("start", "pause", "resume", "stop")
    ]

    assert states == ["running", "paused", "running", "stopped"]


def patch(client, run, changes, **headers):
    return client.patch(f"/api/v1/runs/{run.pk}/", changes, content_type="application/json", headers=headers)


def test_a_runs_name_tags_and_notes_change_and_nothing_else(operator):
    run = make(rounds=3)

    changed = patch(operator, run, {"name": "winter", "tags": ["a", "A", "b"], "notes": "why"})
    refused = patch(operator, run, {"rounds": 5})

    run.refresh_from_db()
    assert {name: changed.json()[name] for name in ("name", "tags", "notes")} == {
        "name": "winter",
        "tags": ["a", "b"],
        "notes": "why",
    }
    assert (refused.status_code, error_of(refused)) == (422, "invalid")
    assert (run.name, run.rounds) == ("winter", 3)


@pytest.mark.parametrize(
    "changes", [{"name": ""}, {"tags": ["a,b"]}, {"tags": "a"}, {"notes": "n" * 2001}, {"tags": None}]
)
def test_a_description_that_cannot_be_is_refused(operator, changes):
    run = make()

    assert patch(operator, run, changes).status_code == 422


def test_a_change_is_done_once_under_its_key(operator):
    run = make()

    first = patch(operator, run, {"name": "winter"}, idempotency_key="k")
    runs.describe_run(run=run, name="summer", now=timezone.now())
    again = patch(operator, run, {"name": "winter"}, idempotency_key="k")

    run.refresh_from_db()
    assert first.json() == again.json()
    assert run.name == "summer"


def test_viewers_describe_nothing(viewer):
    run = make()

    assert patch(viewer, run, {"name": "mine"}).status_code == 403


def test_runs_are_found_by_tag(viewer):
    make("one", tags=["Winter"])
    make("two", tags=["winter b"])

    found = viewer.get("/api/v1/runs/?tag=winter").json()["results"]

    assert [run["name"] for run in found] == ["one"]


def test_the_log_says_who_paused(operator):
    run = make()
    operator.post(f"/api/v1/runs/{run.pk}/start/")
    operator.post(f"/api/v1/runs/{run.pk}/pause/")

    assert "paused by operator" in Event.objects.filter(stream=run.stream).latest("seq").data


def test_a_run_can_stop_after_the_round_that_trains(operator, training):
    run, _ = training

    body = operator.post(f"/api/v1/runs/{run.pk}/stop/", {"after_round": True}).json()

    assert (body["state"], body["stop_after_round"]) == ("running", True)
    assert current_round(run).state == "training"


def test_a_run_stops_now_unless_asked_otherwise(operator, training):
    run, _ = training

    body = operator.post(f"/api/v1/runs/{run.pk}/stop/").json()

    assert body["state"] == "stopped"
    assert set(run.round_set.get().assignments.values_list("state", flat=True)) == {"cancelled"}


def extend(client, run, body, **headers):
    return client.post(f"/api/v1/runs/{run.pk}/extend-deadline/", body, headers=headers)


def test_a_deadline_is_extended_once_under_its_key(operator, training):
    run, _ = training
    before = current_round(run).deadline_at

    first = extend(operator, run, {"seconds": 60}, idempotency_key="k")
    again = extend(operator, run, {"seconds": 60}, idempotency_key="k")

    assert current_round(run).deadline_at - before == timedelta(seconds=60)
    assert first.json() == again.json()
    assert first.json()["actions"] == ["pause", "extend_deadline", "stop_after_round", "stop_now"]
    assert noted_of(Act.RUN_EXTEND_DEADLINE) == [
        ("run.extend_deadline", "operator", f"{run.label} a run", "127.0.0.1", "rest")
    ]
    assert AuditEntry.objects.get(act=Act.RUN_EXTEND_DEADLINE).detail == "round 1, by 60 s"


@pytest.mark.parametrize("body", [{}, {"seconds": "soon"}, {"seconds": 0}, {"seconds": -1}, {"seconds": 86_401}])
def test_an_extension_that_is_no_time_or_too_long_is_refused(operator, training, body):
    run, _ = training
    before = current_round(run).deadline_at

    response = extend(operator, run, body)

    assert (response.status_code, error_of(response)) == (422, "invalid")
    assert "seconds" in response.json()["error"]["message"] or "86400 s" in response.json()["error"]["message"]
    assert current_round(run).deadline_at == before


def test_a_run_without_a_round_that_trains_has_no_deadline_to_extend(operator):
    response = extend(operator, make(), {"seconds": 60})

    assert (response.status_code, error_of(response)) == (409, "conflict")


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def listed(client, query=""):
    return [run["name"] for run in client.get(f"/api/v1/runs/{query}").json()["results"]]


def test_runs_are_listed_newest_first_in_pages(viewer):
    for name in ("one", "two", "three"):
        make(name)

    first = viewer.get("/api/v1/runs/?page_size=2").json()

    assert (first["count"], [run["name"] for run in first["results"]]) == (3, ["three", "two"])
    assert listed(viewer, "?page_size=2&page=2") == ["one"]
    assert viewer.get("/api/v1/runs/?page=9").status_code == 404


def test_runs_are_filtered_by_state_task_strategy_and_name(viewer):
    make("oak")
    make("elm", strategy="fedadam")
    make("ash", task="digits")
    runs.start_run(run=Run.objects.get(name="oak"), now=timezone.now())

    assert listed(viewer, "?state=running") == ["oak"]
    assert listed(viewer, "?state=running&state=pending") == ["ash", "elm", "oak"]
    assert listed(viewer, "?task=digits") == ["ash"]
    assert listed(viewer, "?strategy=fedadam") == ["elm"]
    assert listed(viewer, "?search=EL") == ["elm"]


def test_a_filter_that_means_nothing_is_refused(viewer):
    response = viewer.get("/api/v1/runs/?state=tired")

    assert (response.status_code, error_of(response)) == (422, "invalid")


def test_a_list_of_runs_costs_the_same_however_long_it_is(viewer, django_assert_num_queries, trained):
    viewer.get("/api/v1/runs/")
    with django_assert_num_queries(5):  # session, person, role; count, runs
        viewer.get("/api/v1/runs/")
    for number in range(5):
        make(f"run {number}")

    with django_assert_num_queries(5):
        viewer.get("/api/v1/runs/")


def test_a_run_says_how_far_it_has_come(viewer, trained):
    body = viewer.get(f"/api/v1/runs/{trained.pk}/").json()

    assert (body["state"], body["round"], body["model_version"]) == ("running", 2, 1)
    assert body["best_version"] == trained.best_model.version


def test_rounds_tell_what_they_made(viewer, trained):
    first, second = viewer.get(f"/api/v1/runs/{trained.pk}/rounds/").json()["results"]

    assert (first["number"], first["state"], first["base_version"], first["version"]) == (1, "completed", 0, 1)
    assert (first["selected"], first["updates_received"]) == (2, 2)
    assert first["metrics"] == GlobalModel.objects.get(run=trained, version=1).metrics
    assert set(first["device_metrics"]["loss"]) == {"mean", "p10", "p90"}
    assert (second["number"], second["state"], second["version"], second["selected"]) == (2, "training", None, 2)


def test_a_round_tells_each_devices_part(viewer, trained):
    body = viewer.get(f"/api/v1/runs/{trained.pk}/rounds/1/").json()

    parts = body["assignments"]
    assert [part["cohort_index"] for part in parts] == [0, 1]
    assert {part["state"] for part in parts} == {"accepted"}
    assert all(part["device_name"].startswith("device-") for part in parts)
    assert all(part["update"]["num_examples"] > 0 and part["update"]["norm"] > 0 for part in parts)


def test_an_assignment_without_an_update_says_so(viewer, training):
    run, _ = training

    parts = viewer.get(f"/api/v1/runs/{run.pk}/rounds/1/").json()["assignments"]

    assert [(part["state"], part["update"]) for part in parts] == [("assigned", None)] * 2


def test_a_round_that_does_not_exist_answers_404(viewer, training):
    run, _ = training

    assert viewer.get(f"/api/v1/runs/{run.pk}/rounds/9/").status_code == 404


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_are_listed_from_the_initial_one(viewer, trained):
    initial, first = viewer.get(f"/api/v1/runs/{trained.pk}/models/").json()["results"]

    assert (initial["version"], initial["parent"], initial["round"]) == (0, None, None)
    assert (first["version"], first["parent"], first["round"]) == (1, 0, 1)
    assert [initial["is_best"], first["is_best"]].count(True) == 1
    assert first["weights_url"] == f"/api/v1/runs/{trained.pk}/models/1/weights/"


def test_a_candidate_that_is_not_published_is_not_shown(viewer, trained):
    GlobalModel.objects.filter(run=trained, version=1).update(published_at=None)

    assert len(viewer.get(f"/api/v1/runs/{trained.pk}/models/").json()["results"]) == 1
    assert viewer.get(f"/api/v1/runs/{trained.pk}/models/1/weights/").status_code == 404
    assert viewer.get(f"/api/v1/runs/{trained.pk}/models/last/").json()["version"] == 0


@pytest.mark.parametrize("which", ["1", "last", "best"])
def test_weights_are_downloaded_as_safetensors_that_bear_their_digest(viewer, trained, which):
    model = trained.best_model if which == "best" else GlobalModel.objects.get(run=trained, version=1)

    response = viewer.get(f"/api/v1/runs/{trained.pk}/models/{which}/weights/")
    data = response.getvalue()

    assert response.status_code == 200
    assert weights_digest(decode(data, spec_of_task("linear"))) == model.digest
    assert response.headers["ETag"] == f'"{model.digest}"'
    assert int(response.headers["Content-Length"]) == len(data) == model.size
    assert f'{trained.label}-v{model.version}.safetensors"' in response.headers["Content-Disposition"]


def test_weights_that_one_has_are_not_sent_again(viewer, trained):
    address = f"/api/v1/runs/{trained.pk}/models/last/weights/"
    first = viewer.get(address)
    assert first.getvalue()
    etag = first.headers["ETag"]

    response = viewer.get(address, headers={"If-None-Match": f'"other", W/{etag}'})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == etag


def test_weights_that_differ_from_those_one_has_are_sent(viewer, trained):
    address = f"/api/v1/runs/{trained.pk}/models/last/weights/"

    response = viewer.get(address, headers={"If-None-Match": '"other"'})

    assert (response.status_code, len(response.getvalue())) == (200, int(response.headers["Content-Length"]))


@pytest.mark.parametrize("which", ["9", "worst", "-1", "0x1", pytest.param("9" * 5000, id="endless")])
def test_a_version_that_does_not_exist_answers_404(viewer, trained, which):
    assert viewer.get(f"/api/v1/runs/{trained.pk}/models/{which}/weights/").status_code == 404


def test_without_a_best_version_there_is_none(viewer, training):
    run, _ = training
    Run.objects.update(best_model=None)

    assert viewer.get(f"/api/v1/runs/{run.pk}/models/best/").status_code == 404


# ── the learning curve ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_runs_series_tells_its_rounds_as_they_were_measured(viewer, trained):
    body = viewer.get(f"/api/v1/runs/{trained.pk}/series/").json()

    measured = list(GlobalModel.objects.order_by("version").values_list("metrics", flat=True))
    assert (body["run"], body["label"], body["name"]) == (trained.pk, trained.label, trained.name)
    assert body["first"] == body["last"] == [0, 1]
    assert body["metrics"]["loss"]["mean"] == [metrics["loss"] for metrics in measured]
    assert body["on_devices"] is False


def test_the_series_of_a_run_that_one_may_not_see_is_not_found(viewer, anybody, trained):
    assert viewer.get("/api/v1/runs/999/series/").status_code == 404
    assert anybody.get(f"/api/v1/runs/{trained.pk}/series/").status_code in (401, 403, 404)


def test_a_width_that_cannot_be_is_refused(viewer, trained):
    refused = viewer.get(f"/api/v1/runs/{trained.pk}/series/?width=100000")

    assert refused.status_code == 422
