"""The list of runs as a page: its address says what it shows, and its state what its scripts start from."""

import re
from urllib.parse import parse_qs

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fl import runs
from tests.builders import NOW, person, started_run
from tests.fl.views.answers import after_one_round, plan_named, state_of, text_of

pytestmark = pytest.mark.django_db


def make(name, by=None):
    return runs.create_run(plan=plan_named(name), created_by=by, now=NOW)


def links(response):
    return [href.replace("&amp;", "&") for href in re.findall(r'<a[^>]*href="(\?[^"]*)"', response.content.decode())]


def test_the_list_turns_pages_and_says_where_it_is(viewer):
    for number in range(27):
        make(f"run-{number:02d}")

    first, second = viewer.get("/runs/"), viewer.get("/runs/?page=2")

    assert "run-02" in text_of(first)
    assert "run-01" not in text_of(first)
    assert "27 runs, page 1 of 2" in text_of(first)
    assert "run-01" in text_of(second)


def test_a_state_filters(viewer):
    make("the waiting one")
    runs.stop_run(run=started_run(name="the stopped one"), now=NOW)

    page = text_of(viewer.get("/runs/?state=stopped"))

    assert "the stopped one" in page
    assert "the waiting one" not in page


def test_a_row_tells_what_a_run_is_and_has_come_to(viewer):
    run = after_one_round()
    runs.describe_run(run=run, name="winter", tags=["clinic"], now=NOW)

    page = text_of(viewer.get("/runs/"))

    best = run.best_model.metrics
    shown = f"{best['accuracy'] * 100:.2f} %" if "accuracy" in best else f"loss {best['loss']:.4f}"
    assert "winter" in page
    assert "Tag clinic" in page
    assert "1 of 2" in page
    assert shown in page


def test_a_column_sorts_and_the_other_way_round_at_the_second_click(viewer):
    make("alpha")
    make("beta")

    page = viewer.get("/runs/?sort=name").content.decode()

    head = re.search(r'<th[^>]*aria-sort="([a-z]+)"[^>]*><a href="([^"]*)"[^>]*>Run', page)
    assert head.groups() == ("ascending", "?sort=-name")
    assert page.index(">alpha<") < page.index(">beta<")
    assert page.count("aria-sort") == 1


def test_every_link_of_the_list_keeps_the_rest_of_the_view(viewer):
    for number in range(30):
        make(f"winter {number}")
    asked = "?state=pending&task=linear&text=winter&sort=name&run=3&page=2"

    page = viewer.get(f"/runs/{asked}")

    turned = re.search(r'href="\?([^"]*)"[^>]*rel="prev"', page.content.decode())[1].replace("&amp;", "&")
    assert parse_qs(turned) == {
        "state": ["pending"],
        "task": ["linear"],
        "text": ["winter"],
        "sort": ["name"],
        "run": ["3"],
    }
    assert all("run=3" in link for link in links(page))


def test_nonsense_in_the_address_shows_the_usual_list(viewer):
    make("alpha")

    page = viewer.get("/runs/?state=x&task=%00&strategy=&tag=%F0%9F&sort=-id;drop&page=-3&run=x&run=99999999999")

    assert page.status_code == 200
    assert "alpha" in text_of(page)
    assert "1 run" in text_of(page)


def test_an_empty_list_says_why(viewer):
    assert "No run yet." in text_of(viewer.get("/runs/"))

    make("alpha")

    assert "No run fits these filters. Show all runs" in text_of(viewer.get("/runs/?text=zebra"))


def test_ticked_runs_stay_ticked_and_those_of_other_pages_are_named(viewer):
    made = [make(f"run-{number:02d}") for number in range(27)]

    page = viewer.get(f"/runs/?run={made[0].pk}&run={made[-1].pk}").content.decode()

    ticked = re.findall(r'<input type="checkbox" name="run" value="(\d+)" checked>', page)
    assert {int(number) for number in ticked} == {made[0].pk, made[-1].pk}


def test_the_scripts_start_from_the_rows_and_their_positions(viewer):
    run = after_one_round()

    state = state_of(viewer.get("/runs/"))

    assert [status["run_id"] for status in state["runs"]] == [run.pk]
    assert state["figures"][0]["best"]["on_devices"] is False
    assert run.stream in state["positions"]


def test_who_started_a_run_is_for_those_who_are_signed_in(client, settings, viewer):
    make("alpha", by=person("omar", "operator"))
    settings.QFLARE_PUBLIC_DASHBOARD = True

    seen = text_of(viewer.get("/runs/?sort=started_by"))
    viewer.logout()
    hidden = viewer.get("/runs/?sort=started_by")

    assert "omar" in seen
    assert "omar" not in hidden.content.decode()
    assert "Started by" not in text_of(hidden)


def test_only_operators_are_offered_to_edit_and_to_repeat(viewer, client):
    run = make("alpha")
    edit = reverse("edit-run", args=[run.pk])

    seen = viewer.get("/runs/").content.decode()
    client.force_login(person("olga", "operator"))

    assert edit not in seen
    assert edit in client.get("/runs/").content.decode()


def test_a_page_of_25_runs_takes_at_most_twelve_queries(viewer):
    after_one_round()
    for number in range(24):
        runs.describe_run(run=started_run(name=f"run {number}"), tags=["winter"], now=NOW)

    with CaptureQueriesContext(connection) as captured:
        page = viewer.get("/runs/?sort=-last&tag=winter")

    statements = [query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))]
    assert "24 runs" in text_of(page)
    assert len(statements) <= 12, "\n".join(statements)
