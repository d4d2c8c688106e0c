"""`manage.py serve` and `coordinate`: what must be right is checked first, and said in one clear message."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from qflare.management.commands.serve import server_class
from tests.realtime.servers import OURS, start_server
from tests.services.certificates import make_certificates
from tests.services.ports import free_port
from tests.services.programs import signal_another_thread

ROOT = Path(__file__).parent.parent.parent


def run(folder, *arguments, **environment):
    """Run a management command on its own data folder."""
    settings = {**os.environ, "QFLARE_DATA_DIR": str(folder), "DATABASE_URL": "", "REDIS_URL": "", **environment}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300, check=False)


def test_a_database_that_is_not_up_to_date_is_refused_with_what_to_run(tmp_path):
    done = run(tmp_path, "serve", "--port", "0")

    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "coordinate"])
def test_a_database_that_cannot_be_reached_is_one_clear_message(tmp_path, command):
    away = f"postgres://qflare:secret@127.0.0.1:{free_port()}/qflare"

    done = run(tmp_path, command, DATABASE_URL=away, QFLARE_DATABASE_WAIT_SECONDS="0.2")

    assert done.returncode == 1
    assert "the database cannot be reached" in done.stderr
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("kind", OURS)
def test_a_taken_port_is_one_clear_message(tmp_path, kind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = run(tmp_path, "serve", "--server", kind, "--port", str(port))

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_heartbeat_that_does_not_fit_the_lease_is_refused_before_anything_starts(tmp_path):
    done = run(tmp_path, "serve", "--port", "0", QFLARE_LEASE_SECONDS="10", QFLARE_HEARTBEAT_SECONDS="60")

    assert done.returncode == 1
    assert "QFLARE_LEASE_SECONDS" in done.stderr


def test_a_server_that_is_not_installed_is_named_with_what_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "qflare.uvicorn_server", raising=False)

    with pytest.raises(CommandError, match=r"(?s)uvicorn is not installed.*pip install -r requirements\.txt"):
        server_class("uvicorn")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--certificate", "chain"], "belong together"),
        (["--key", "key"], "belong together"),
        (["--certificate", "missing", "--key", "key"], "No such file"),
        (["--certificate", "key", "--key", "chain"], "must have no password"),
        (["--certificate", "chain", "--key", "other"], "Name PEM files that belong together"),
    ],
)
def test_certificates_that_cannot_be_used_are_one_clear_message(tmp_path, certificates, options, why):
    other = make_certificates(tmp_path)
    files = {"chain": certificates.chain, "key": certificates.key, "other": other.key, "missing": tmp_path / "missing"}

    with pytest.raises(CommandError, match=why):
        call_command("serve", "--port", "0", *[str(files.get(option, option)) for option in options])


@pytest.fixture(scope="module", params=OURS)
def server(request, tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("serve"), kind=request.param)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_static_files_are_served_under_hashed_names_that_may_be_kept_for_ever(server):
    page = httpx.get(f"{server.url}/admin/login/").text
    path = re.search(r'href="(/static/admin/css/base\.[0-9a-f]+\.css)"', page)[1]

    answer = httpx.get(f"{server.url}{path}")

    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]


def test_a_name_that_is_not_the_server_s_is_refused_and_logged_in_one_line(server):
    answer = httpx.get(f"{server.url}/login/", headers={"Host": "evil.example"})

    assert answer.status_code == 400
    assert len(re.findall("Invalid HTTP_HOST header: 'evil.example'", server.log)) == 1
    assert "Traceback" not in server.log


def test_the_database_is_written_ahead(server):
    assert (server.folder / "qflare.sqlite3-wal").exists()


@pytest.mark.parametrize("give", [os.kill, signal_another_thread], ids=["the process", "another thread of it"])
def test_coordinate_runs_beside_a_server_says_how_it_is_heard_and_ends_in_order(server, give):
    command = [sys.executable, "manage.py", "coordinate"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "coordinating\n"

    give(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 0
    assert "REDIS_URL is not set" in stderr


def test_static_files_are_collected_again_only_when_they_changed(tmp_path):
    code = "from qflare.static import collect_if_stale as c; print(c(), c())"

    first = run(tmp_path, "shell", "-v0", "-c", code)
    second = run(tmp_path, "shell", "-v0", "-c", code)

    assert first.stdout.split() == ["True", "False"], first.stderr
    assert second.stdout.split() == ["False", "False"]


LOOK = """
import gc, os, signal, threading
import django
from django.core.management import call_command

def look():
    while not gc.get_freeze_count():
        threading.Event().wait(0.01)
    print("old:", gc.get_freeze_count(), "new:", len(gc.get_objects()), "looks:", gc.isenabled(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

django.setup()
call_command("migrate", verbosity=0)
threading.Thread(target=look, daemon=True).start()
call_command("serve", port=0, server={server!r})
"""


@pytest.mark.parametrize("kind", OURS)
def test_what_start_up_has_made_is_never_looked_through_for_garbage_again(tmp_path, kind):
    settings = {**os.environ, "QFLARE_DATA_DIR": str(tmp_path), "DATABASE_URL": "", "REDIS_URL": ""}
    program = [sys.executable, "-c", LOOK.format(server=kind)]

    done = subprocess.run(program, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300, check=False)

    old, new, looks = re.search(r"old: (\d+) new: (\d+) looks: (\w+)", done.stdout).groups()
    assert done.returncode == 0, done.stderr
    assert int(old) > 10 * int(new)
    assert looks == "True"
