"""Pages in the reader's language: whole, by choice or by the browser's wish; and English for everybody else."""

import json
import re

import pytest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation

from fl import runs
from fl.queries.compare import settings_of
from tests.builders import NOW
from tests.catalogues import CATALOGUES, entries
from tests.fl.views.answers import after_one_round, plan_named, text_of

pytestmark = pytest.mark.django_db

GERMAN = {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"}
(CATALOGUE,) = (path for path in CATALOGUES if path.parts[-3:] == ("de", "LC_MESSAGES", "django.po"))
PATHS = [
    "/",
    "/audit/",
    "/runs/",
    "/runs/?text=nothing",
    "/runs/new/",
    "/runs/new/?from={run}",
    "/runs/{run}/",
    "/runs/{run}/rounds/",
    "/runs/{run}/rounds/1/",
    "/runs/{run}/devices/",
    "/runs/{run}/config/",
    "/runs/{run}/models/",
    "/runs/{run}/events/",
    "/runs/{run}/edit/",
    "/runs/{run}/stop/",
    "/compare/?run={run}",
    "/devices/",
    "/devices/{device}/",
    "/devices/enrol/",
    "/events/",
    "/health/",
    "/inspector/",
    "/docs/",
    "/docs/asyncapi/",
    "/docs/readme/",
    "/login/",
    "/sign-in/",
]


@pytest.fixture(autouse=True)
def plain_language():
    """Whatever a test leaves behind, the next one begins as a process does."""
    yield
    translation.deactivate()


def german_part(response):
    """Return what a person reads on a page, scripts and what is marked as English aside."""
    html = re.sub(r'<(\w+)[^>]* lang="en".*?</\1>', " ", response.content.decode(), flags=re.DOTALL)
    response.content = html
    return text_of(response)


def language_of(response):
    return re.search(r'<html lang="(\w+)">', response.content.decode())[1]


def words_of(response):
    return json.loads(re.search(r'<script id="words"[^>]*>(.*?)</script>', response.content.decode(), re.DOTALL)[1])


def english_sentences():
    """Return the texts of the catalogue that no German sentence could be: of several words, and without places."""
    texts = [entry.one for entry in entries(CATALOGUE.read_text()) if entry.one not in entry.translated]
    return [text for text in texts if text.count(" ") > 1 and not re.search(r"[%{<]", text)]


# ── which language ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_german_for_who_asks_for_it(admin, path):
    run = after_one_round()
    device = run.round_set.first().assignments.first().device_id

    page = admin.get(path.format(run=run.pk, device=device), headers=GERMAN)

    assert page.status_code == 200
    assert language_of(page) == page.headers["Content-Language"] == "de"
    text = german_part(page)
    assert "Zeiten in UTC" in text
    assert [sentence for sentence in english_sentences() if sentence in text] == []


def test_english_is_what_one_gets_without_asking(viewer):
    page = viewer.get("/runs/")

    assert (language_of(page), page.headers["Content-Language"]) == ("en", "en")
    assert "Times in UTC" in text_of(page)


def test_a_language_that_there_is_not_is_english(viewer):
    assert language_of(viewer.get("/runs/", headers={"Accept-Language": "tlh"})) == "en"


def test_a_page_says_what_its_language_was_chosen_by(viewer):
    vary = viewer.get("/runs/").headers["Vary"]

    assert {"Accept-Language", "Cookie"} <= {name.strip() for name in vary.split(",")}


def test_choosing_a_language_keeps_the_page_and_outweighs_the_browser(viewer):
    chosen = viewer.post(reverse("set-language"), {"language": "de", "next": "/runs/?text=winter"})

    assert (chosen.status_code, chosen.url) == (302, "/runs/?text=winter")
    assert language_of(viewer.get(chosen.url, headers={"Accept-Language": "en"})) == "de"


def test_the_cookie_of_the_language_is_kept_as_the_others_are(client, settings):
    settings.LANGUAGE_COOKIE_SECURE = True

    cookie = client.post(reverse("set-language"), {"language": "de"}).cookies["django_language"]

    assert cookie["httponly"] and cookie["secure"]
    assert cookie["samesite"] == "Lax"
    assert cookie["max-age"] == 86_400 * 365


def test_choosing_a_language_leads_to_no_other_server(client):
    assert client.post(reverse("set-language"), {"language": "de", "next": "https://example.org/"}).url == "/"


def test_who_is_signed_out_can_choose_too(client):
    page = client.get("/login/", headers=GERMAN).content.decode()

    form = re.search(r'<form[^>]*action="/language/".*?</form>', page, re.DOTALL)[0]
    assert 'name="next" value="/login/"' in form
    assert re.findall(r'value="(\w+)" lang="\w+" (aria-current)?', form) == [("en", ""), ("de", "aria-current")]


def test_what_is_refused_is_refused_in_the_readers_language(viewer):
    nowhere, forbidden = viewer.get("/nowhere/", headers=GERMAN), viewer.get("/runs/new/", headers=GERMAN)

    assert (nowhere.status_code, language_of(nowhere)) == (404, "de")
    assert "Nicht gefunden" in text_of(nowhere)
    assert (forbidden.status_code, language_of(forbidden)) == (403, "de")
    assert "Dafür ist die Rolle Operator nötig" in text_of(forbidden)


def test_a_page_without_a_database_is_german_too():
    with translation.override("de"):
        page = render_to_string("503.html", {"seconds": 5})

    assert '<html lang="de">' in page
    assert "In 5 s noch einmal versuchen" in page


# ── what is said in it ────────────────────────────────────────────────────────────────────────────────────────────────


def test_states_and_events_are_told_in_german(viewer):
    after_one_round()

    page = text_of(viewer.get("/", headers=GERMAN))

    assert "Runde 1 ist abgeschlossen" in page
    assert "Runde 2 von 2" in page
    assert "2 von 2 online" in page


def test_scripts_speak_as_the_page_does(viewer):
    german, english = words_of(viewer.get("/runs/", headers=GERMAN)), words_of(viewer.get("/runs/"))

    assert (german["run"]["running"]["word"], english["run"]["running"]["word"]) == ("Läuft", "Running")
    assert german["lines"]["training_progress.accepted"]["title"] == "{device_name} hat sein Update gesendet"
    assert german["run"]["running"].keys() == english["run"]["running"].keys()
    assert [german[name] for name in ("keys", "troubled")] == [english[name] for name in ("keys", "troubled")]


def test_forms_ask_and_complain_in_german(operator):
    page = text_of(operator.post("/runs/new/", {"name": ""}, headers=GERMAN))

    assert "Dieses Feld ist zwingend erforderlich." in page
    assert "Wie oft die Geräte trainieren und das Modell erneuert wird: ab 1." in page
    assert "η: die Lernrate des Servers; von 0 bis 10." in page


def test_a_run_that_is_repeated_is_named_in_the_readers_language(operator):
    run = runs.create_run(plan=plan_named("winter erneut"), created_by=None, now=NOW)

    page = operator.get(f"/runs/new/?from={run.pk}", headers=GERMAN).content.decode()

    assert 'value="winter erneut"' in page


def test_no_two_settings_are_called_alike_in_any_language(operator):
    run = runs.create_run(plan=plan_named("winter"), created_by=None, now=NOW)
    english = settings_of([run])

    with translation.override("de"):
        german = settings_of([run])

    assert len({setting.name for setting in german}) == len(german) == len(english)


# ── where English is spoken ───────────────────────────────────────────────────────────────────────────────────────────


def test_programs_are_answered_in_english(operator):
    answer = operator.post("/api/v1/runs/", {}, content_type="application/json", headers=GERMAN)

    assert answer.status_code == 422
    assert "This field is required." in answer.json()["error"]["message"]
    assert "Accept-Language" not in answer.headers.get("Vary", "")


def test_files_are_english_whoever_asks_for_them(viewer):
    after_one_round()

    file = viewer.get("/events/?format=csv", headers=GERMAN).getvalue().decode()

    assert "Round 1 is completed" in file


def test_a_request_leaves_no_language_behind(viewer):
    viewer.get("/runs/", headers=GERMAN)

    assert translation.get_language() == "en"


def test_documents_are_marked_as_english(viewer):
    page = viewer.get("/docs/readme/", headers=GERMAN).content.decode()

    assert '<article class="card prose" lang="en">' in page
