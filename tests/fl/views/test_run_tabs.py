"""The tabs of a run: who may open them, and what all of them keep to; its models."""

import re

import pytest
from django.urls import reverse

from fl.models import Device, Event, Run
from tests.builders import person, started_run
from tests.fl.views.answers import after_one_round, state_of, text_of
from tests.fl.views.counting import queries_of
from tests.fl.views.long_runs import long_run
from tests.fl.views.test_doors import InlineFinder

pytestmark = pytest.mark.django_db

TABS = ["run-rounds", "run-devices", "run-config", "run-models", "run-events"]
WORDS = ["Live", "Rounds", "Devices", "Configuration", "Models", "Events"]


def tab_bar(response):
    """Return the words of the bar of tabs, and the one that is current."""
    bar = re.search(r'<nav class="tabs run-tabs".*?</nav>', response.content.decode(), re.DOTALL)[0]
    return re.findall(r">(\w+)</a>", bar), re.findall(r'aria-current="page">(\w+)</a>', bar)


# ── who may open them, and what all of them keep to ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TABS)
def test_whoever_is_not_signed_in_is_sent_to_the_login_and_back(client, name):
    address = reverse(name, args=[started_run().pk])

    assert client.get(address).url == f"/login/?next={address}"


@pytest.mark.parametrize("name", TABS)
def test_a_person_without_a_role_is_refused(client, name):
    client.force_login(person("nobody"))

    assert client.get(reverse(name, args=[started_run().pk])).status_code == 403


@pytest.mark.parametrize("name", TABS)
def test_a_run_that_is_not_there_has_no_tab(viewer, name):
    assert viewer.get(reverse(name, args=[999])).status_code == 404


@pytest.mark.parametrize("name", [*TABS, "run"])
def test_a_public_dashboard_shows_every_tab_without_who_made_the_run(client, settings, name):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    run = after_one_round()
    Run.objects.filter(pk=run.pk).update(created_by=person("omar", "operator"))

    response = client.get(reverse(name, args=[run.pk]))

    assert response.status_code == 200
    assert "omar" not in response.content.decode()
    fingerprints = Device.objects.values_list("fingerprint", flat=True)
    assert [each for each in fingerprints if each[:12] in response.content.decode()] == []


@pytest.mark.parametrize(("name", "word"), list(zip(["run", *TABS], WORDS, strict=True)))
def test_every_tab_has_the_bar_and_says_which_it_is(viewer, name, word):
    run = after_one_round()

    words, current = tab_bar(viewer.get(reverse(name, args=[run.pk])))

    assert words == WORDS
    assert current == [word]


def test_on_the_overview_no_tab_is_current(viewer):
    after_one_round()

    assert tab_bar(viewer.get("/")) == (WORDS, [])


def test_commands_by_form_are_still_reached_beside_the_tabs(operator):
    run = started_run()

    operator.post(reverse("command-run", args=[run.pk, "pause"]))

    run.refresh_from_db()
    assert run.state == "paused"
    assert operator.get(f"/runs/{run.pk}/pause/").status_code == 405


def test_no_tab_has_a_style_or_script_in_its_markup(admin):
    run = after_one_round()
    addresses = [reverse(name, args=[run.pk]) for name in TABS] + [reverse("run-round", args=[run.pk, 1])]

    for address in addresses:
        finder = InlineFinder()
        finder.feed(admin.get(address).content.decode())
        assert finder.found == [], address


@pytest.mark.parametrize("name", TABS)
def test_a_tab_carries_its_run_and_the_positions_it_was_rendered_at(viewer, name):
    run = after_one_round()

    state = state_of(viewer.get(reverse(name, args=[run.pk])))

    assert (state["run_id"], state["runs"][0]["run_id"]) == (run.pk, run.pk)
    assert state["positions"][run.stream]["seq"] == Event.objects.filter(stream=run.stream).count()


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_published_versions_are_listed_newest_first_with_whole_digests_and_marks(viewer):
    run = after_one_round()

    response = viewer.get(reverse("run-models", args=[run.pk]))

    rows = re.findall(r'<tr data-key="(\d+)" (data-best)?>(.*?)</tr>', response.content.decode(), re.DOTALL)
    assert [version for version, _, _ in rows] == ["1", "0"]
    assert [version for version, best, _ in rows if best] == [str(run.best_model.version)]
    assert ["Last" in row for _, _, row in rows] == [True, False]
    for version, _, row in rows:
        model = run.models.get(version=version)
        assert row.count(model.digest) == 2
        assert f"/api/v1/runs/{run.pk}/models/{version}/weights/" in row
        assert f"{model.metrics['loss']:.4f}" in row


def test_a_candidate_is_not_listed(viewer):
    run = after_one_round()
    run.models.filter(version=1).update(published_at=None)

    assert "1 version" in text_of(viewer.get(reverse("run-models", args=[run.pk])))


def test_models_turn_pages_and_take_as_many_queries_for_many(viewer):
    few = long_run(rounds=3, devices=1)
    many = long_run(rounds=60, devices=1, prefix="other")
    address = reverse("run-models", args=[many.pk])

    assert re.findall(r'<tr data-key="(\d+)"', viewer.get(address, {"page": 3}).content.decode()) == [
        str(version) for version in range(10, -1, -1)
    ]
    taken = queries_of(viewer, reverse("run-models", args=[few.pk]))
    assert queries_of(viewer, address) == taken <= 12
