"""Static files as they are collected: hashed names in every import, and scripts without what is not for the browser."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.base import ContentFile

from qflare.static import ModuleManifestStaticFilesStorage, collect_if_stale
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


@pytest.fixture
def collected(tmp_path, settings):
    """Write the one source, collect, and return the names of all that is there, without what says what they are."""
    source, root = tmp_path / "source", tmp_path / "static"
    source.mkdir()
    settings.DEBUG = False
    backend = {"BACKEND": "qflare.static.ModuleManifestStaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATICFILES_DIRS = [source]
    settings.STATIC_ROOT = root

    def collect(text):
        (source / "greet.js").write_text(text)
        assert collect_if_stale()
        return {path.name for path in root.iterdir()} - {".collected", "staticfiles.json"}

    return collect


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


def test_what_a_server_of_the_version_before_serves_stays_until_the_next_one(collected):
    one = collected("1; // one")
    two = collected("2; // two")
    three = collected("3; // three")
    again = collected("3; // three")  # as on another machine, where the file has another time

    assert len(one) == 1
    assert one < two
    assert len(two) == 2
    assert three == again
    assert two - one < three
    assert not one & three


def test_what_is_there_already_is_not_written_again_under_those_who_read_it(collected, settings):
    (name,) = collected("1; // one")
    path = Path(settings.STATIC_ROOT) / name
    before = path.stat().st_ino

    collected("1; // one")

    assert path.stat().st_ino == before


def test_pages_name_what_was_collected(collected):
    (name,) = collected("1; // one")

    assert staticfiles_storage.url("greet.js") == f"/static/{name}"


def test_servers_that_start_at_once_collect_once_and_wait_for_it(tmp_path):
    environment = {**os.environ, "QFLARE_DATA_DIR": str(tmp_path), "DATABASE_URL": "", "REDIS_URL": ""}
    code = "from qflare.static import collect_if_stale as c; print(c())"
    command = [sys.executable, "manage.py", "shell", "-v0", "-c", code]

    starting = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in "abc"]
    said = sorted(process.communicate(timeout=300)[0].strip() for process in starting)

    assert said == ["False", "False", "True"]
    names = json.loads((tmp_path / "static/staticfiles.json").read_text())["paths"].values()
    assert [name for name in names if not (tmp_path / "static" / name).is_file()] == []
