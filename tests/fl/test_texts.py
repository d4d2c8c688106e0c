"""The scripts' texts: every one is in each catalogue with its places, and a page brings them along in its language."""

import json
import re
import shutil
import subprocess
from gettext import GNUTranslations
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.builders import person
from tests.services.programs import find_program

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "static/js"
CATALOGUES = sorted(ROOT.glob("locale/*/LC_MESSAGES/djangojs.po"))
PLACE = re.compile(r"\{\w+\}")


def in_each_language(test):
    return pytest.mark.parametrize("po", CATALOGUES, ids=lambda po: po.parent.parent.name)(test)


def read(mo):
    with mo.open("rb") as file:
        return GNUTranslations(file)


def said_in(mo):
    """Return what is said by the English text; of a text that counts, by text and form."""
    return {key: said for key, said in read(mo)._catalog.items() if key}


def compile_to(mo, po):
    subprocess.run([find_program(["msgfmt"], "gettext"), "--check-format", "-o", mo, po], check=True)
    return mo


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The texts of the scripts, found as `manage.py makemessages -d djangojs` finds them."""
    folder = tmp_path_factory.mktemp("texts")
    shutil.copytree(SCRIPTS, folder / "static/js")
    (folder / "locale").mkdir()
    filler = find_program(["msgen"], "gettext")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("django.conf.settings.LOCALE_PATHS", [str(folder / "locale")])
        call_command("makemessages", domain="djangojs", locale=["de"], verbosity=0)
    found = folder / "locale/de/LC_MESSAGES/djangojs.po"
    subprocess.run([filler, "-o", found, found], check=True)
    return set(said_in(compile_to(folder / "found.mo", found)))


@in_each_language
def test_a_catalogue_has_every_text_of_the_scripts_and_no_other(wanted, po, tmp_path):
    said = said_in(compile_to(tmp_path / "said.mo", po))

    assert {key for key, text in said.items() if text} == wanted


@in_each_language
def test_what_is_committed_for_programs_says_what_stands_in_the_catalogue(po, tmp_path):
    assert said_in(po.with_suffix(".mo")) == said_in(compile_to(tmp_path / "said.mo", po))


@in_each_language
def test_a_text_has_the_same_places_in_each_language(po):
    said = said_in(po.with_suffix(".mo"))

    english = {key: key if isinstance(key, str) else key[0] for key in said}
    assert [key for key, text in said.items() if set(PLACE.findall(text)) != set(PLACE.findall(english[key]))] == []


@in_each_language
def test_a_language_has_the_two_forms_that_the_scripts_know(po):
    plural = read(po.with_suffix(".mo")).plural

    assert [plural(count) for count in range(200)] == [int(count != 1) for count in range(200)]


def test_a_text_stands_where_it_is_said_so_that_it_is_found():
    calls = re.compile(r"\b(?:gettext\((?!\")|ngettext\((?!\"[^\"]*\", \")).*")
    sources = [path for path in SCRIPTS.rglob("*.js") if path.name != "texts.js"]

    assert [call for path in sources for call in calls.findall(path.read_text())] == []


@pytest.mark.django_db
def test_a_page_brings_its_scripts_texts_along_in_its_language(client):
    client.force_login(person("vera", "viewer"))

    english, german = (client.get("/", headers={"Accept-Language": wish}).content.decode() for wish in ("en", "de"))

    texts = json.loads(re.search(r'<script id="texts"[^>]*>(.*?)</script>', german)[1])
    assert texts["Round {round}"] == "Runde {round}"
    assert texts["{count} new run"] == ["{count} neuer Lauf", "{count} neue Läufe"]
    assert 'id="texts"' not in english
