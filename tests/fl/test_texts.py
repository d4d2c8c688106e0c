"""The scripts' texts: every one is in each catalogue with its places, and a page brings them along in its language."""

import json
import os
import re
import shutil
import subprocess
import sys
from gettext import GNUTranslations

import pytest

from tests.builders import person
from tests.catalogues import CATALOGUES, ROOT, entries
from tests.services.programs import find_program

SCRIPTS = ROOT / "static/js"
OF_SCRIPTS = [path for path in CATALOGUES if path.name == "djangojs.po"]
in_each_language = pytest.mark.parametrize("catalogue", OF_SCRIPTS, ids=lambda path: path.parts[-3])


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The texts of the scripts, as `makemessages` finds them."""
    find_program(["xgettext"], "gettext")
    folder = tmp_path_factory.mktemp("texts")
    shutil.copytree(SCRIPTS, folder / "static/js")
    (folder / "locale").mkdir()
    command = [sys.executable, "-m", "django", "makemessages", "--domain", "djangojs", "--locale", "de"]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {entry.key for entry in entries((folder / "locale/de/LC_MESSAGES/djangojs.po").read_text())}


def test_the_scripts_speak_every_language():
    assert {path.parts[-3] for path in OF_SCRIPTS} == {path.parts[-3] for path in CATALOGUES}


@in_each_language
def test_a_catalogue_has_every_text_of_the_scripts_and_no_other(wanted, catalogue):
    held = {entry.key for entry in entries(catalogue.read_text())}

    assert sorted(wanted - held) == [], "run makemessages, as docs/architecture.md says, and translate these"
    assert sorted(held - wanted) == [], "no script says these any more"
    assert "#~" not in catalogue.read_text()


@in_each_language
def test_a_language_has_the_two_forms_that_the_scripts_know(catalogue):
    with catalogue.with_suffix(".mo").open("rb") as file:
        plural = GNUTranslations(file).plural

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
