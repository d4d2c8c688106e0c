"""Static files as they are collected: hashed names in every import, and scripts without what is not for the browser."""

import re
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from qflare.static import ModuleManifestStaticFilesStorage
from tests.realtime.servers import collected_static

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """// why this is here
export const greet = (name) => `hello // ${name ? `${name} (you)` : ""}`; // the end
  // within
/**
 * What it does: 2 * 3 / 4.
 */
export const address = "http://x";
"""
COLLECTED = """export const greet = (name) => `hello // ${name ? `${name} (you)` : ""}`; // the end
export const address = "http://x";
"""


@pytest.fixture
def storage(tmp_path, settings):
    settings.DEBUG = False
    return ModuleManifestStaticFilesStorage(location=tmp_path, base_url="/static/")


def test_the_pages_own_scripts_lose_lines_of_comments_and_nothing_else(storage, tmp_path):
    storage.save("js/greet.js", ContentFile(SCRIPT.encode()))

    assert (tmp_path / "js/greet.js").read_text() == COLLECTED


def test_no_text_of_a_script_goes_over_several_lines():
    scripts = [*ROOT.glob("static/js/*.js"), *ROOT.glob("static/js/parts/*.js")]

    long = [path.name for path in scripts if any(line.count("`") % 2 for line in path.read_text().splitlines())]

    assert len(scripts) > 30
    assert long == []


def test_what_others_wrote_stays_as_it_is(storage, tmp_path):
    storage.save("vendor/greet.js", ContentFile(SCRIPT.encode()))

    assert (tmp_path / "vendor/greet.js").read_text() == SCRIPT


def test_every_import_names_a_file_that_was_collected():
    folder = collected_static()

    imported = 0
    for script in folder.glob("js/**/*.????????????.js"):
        for address in re.findall(r"""(?:from|import\()\s*["'](\.[^"']+)["']""", script.read_text()):
            assert re.search(r"\.[0-9a-f]{12}\.js$", address), (script.name, address)
            assert (script.parent / address).is_file(), (script.name, address)
            imported += 1
    assert imported > 50
