"""The catalogues hold every text that people read, and nothing else; what is shipped compiled says the same."""

import gettext
import os
import re
import shutil
import subprocess
import sys

import pytest
from django.conf import settings

from tests.catalogues import CATALOGUES, ROOT, entries
from tests.services.programs import find_program

TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
NAMES = {"QFLARE", "CSV", "JSON", "API", "AsyncAPI", "UTC", "ms", "rsaquo"}
"""What is the same in every language."""


def name_of(path):
    return path.relative_to(ROOT / "locale").as_posix()


each_catalogue = pytest.mark.parametrize("catalogue", CATALOGUES, ids=name_of)


# ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A copy of the sources whose catalogues were made anew from them."""
    find_program(["xgettext"], "gettext")
    folder = tmp_path_factory.mktemp("collected")
    for name in ("qflare", "realtime", "fl", "edge", "templates", "locale"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "django", "makemessages", "--all", "--no-location", "--no-wrap"]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "locale"


def test_there_is_a_catalogue_for_each_language_but_english():
    languages = {code for code, _ in settings.LANGUAGES} - {"en"}

    assert {path.parts[-3] for path in CATALOGUES if path.name == "django.po"} == languages


@pytest.mark.parametrize("catalogue", [path for path in CATALOGUES if path.name == "django.po"], ids=name_of)
def test_a_catalogue_holds_every_text_of_the_sources_and_no_other(collected, catalogue):
    wanted = {entry.key for entry in entries((collected / name_of(catalogue)).read_text())}
    held = {entry.key for entry in entries(catalogue.read_text())}

    assert sorted(wanted - held) == [], "run makemessages, as docs/architecture.md says, and translate these"
    assert sorted(held - wanted) == [], "nobody says these any more"
    assert "#~" not in catalogue.read_text()


@each_catalogue
def test_every_text_is_translated_for_certain(catalogue):
    doubtful = [
        entry.one for entry in entries(catalogue.read_text()) if "fuzzy" in entry.flags or not all(entry.translated)
    ]

    assert doubtful == []


def pieces(text):
    """Return what a translation must keep: places to be filled, and markup."""
    return sorted(re.findall(r"%\(\w+\)s|%%|\{[^{}]*\}|<[^>]+>", text))


@each_catalogue
def test_a_translation_keeps_places_and_markup(catalogue):
    for entry in entries(catalogue.read_text()):
        for english, translated in zip([entry.one, entry.many or entry.one], entry.translated * 2, strict=False):
            assert pieces(translated) == pieces(english), entry.one
            # It may stand in an attribute, and is not escaped.
            assert '"' not in re.sub(r"<[^>]+>", "", translated), entry.one


@each_catalogue
def test_what_is_shipped_compiled_says_what_the_catalogue_says(catalogue):
    with catalogue.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)._catalog
    written = {}
    for entry in entries(catalogue.read_text()):
        key = f"{entry.context}\x04{entry.one}" if entry.context else entry.one
        plural = {(key, number): text for number, text in enumerate(entry.translated)}
        written |= plural if entry.many else {key: entry.translated[0]}

    assert {key: text for key, text in compiled.items() if key != ""} == written


# ── what is not marked ────────────────────────────────────────────────────────────────────────────────────────────────


def unmarked(text):
    """Find what people read in a template, as text or as an attribute, that is not marked for translation."""
    blank = re.compile(r"{% blocktranslate.*?{% endblocktranslate %}|{% comment %}.*?{% endcomment %}", re.DOTALL)
    text = re.sub(r"{%.*?%}|{{.*?}}", "\0", blank.sub("\0", text), flags=re.DOTALL)
    text = re.sub(r"<(code|pre|kbd|script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    read = re.findall(r'\s(?:aria-label|title|placeholder|alt)="([^"]*)"', text)
    read += re.sub(r"<[^>]*>", "\n", text).split("\n")
    return [part.strip() for part in read if set(re.findall(r"[^\W\d_]{2,}", part)) - NAMES]


@pytest.mark.parametrize(
    "sinner",
    ["<p>Nothing yet.</p>", '{% icon "plus" %}New run', '<nav aria-label="Pages"></nav>', "<p>{{ count }} devices</p>"],
)
def test_a_text_that_is_not_marked_is_found(sinner):
    assert unmarked(sinner)


@pytest.mark.parametrize(
    "innocent",
    [
        '<p>{% translate "Nothing yet." %}</p>',
        "<nav aria-label=\"{% translate 'Pages' %}\"></nav>",
        "{% blocktranslate count n=n %}{{ n }} device{% plural %}{{ n }} devices{% endblocktranslate %}",
        "<code>qflare-edge run</code>",
        "QFLARE {{ version }}",
    ],
)
def test_what_is_marked_or_the_same_in_every_language_is_fine(innocent):
    assert not unmarked(innocent)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.relative_to(ROOT / "templates").as_posix())
def test_every_text_of_a_template_is_marked(template):
    assert unmarked(template.read_text()) == []
