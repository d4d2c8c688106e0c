"""`manage.py runserver`: our server, with its limits and its sockets, that starts anew when code changes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.realtime.raw import TEXT, RawClient, drop_all
from tests.realtime.servers import _migrated_database
from tests.services.ports import free_port

ROOT = Path(__file__).parent.parent.parent
GIVE_UP_SECONDS = 120
CODE = "from qflare.settings import *\n\n# {}\n"


@pytest.fixture
def running(tmp_path):
    """The command over settings of its own, a file of code that may change: port, file, log."""
    code, log, port = tmp_path / "own_settings.py", tmp_path / "log", free_port()
    code.write_text(CODE.format("as it was"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_SETTINGS_MODULE": "own_settings",
        "QFLARE_DATA_DIR": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{_migrated_database()}",
        "QFLARE_DEBUG": "1",
        "QFLARE_PUBLIC_DASHBOARD": "1",
    }
    command = [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    yield port, code, log
    drop_all()
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(GIVE_UP_SECONDS)


def wait_until_it_answers(port, log):
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/api/v1/health/", trust_env=False, timeout=GIVE_UP_SECONDS)
        except httpx.TransportError:
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)


def dashboard(port):
    client = RawClient(port, "/ws/dashboard", origin=f"http://127.0.0.1:{port}")
    assert json.loads(client.text())["event"] == "welcome"
    return client


def end_by_changes(client, code):
    """Change the code again and again until that ends the connection: what changes at first may be taken as it is."""
    client.socket.settimeout(1)
    for number in range(GIVE_UP_SECONDS):
        code.write_text(CODE.format(f"as it is now, {number}"))
        with contextlib.suppress(TimeoutError):
            return client.close_code()
    raise AssertionError("no change was noticed")


def test_in_development_our_server_serves_and_starts_anew_when_code_changes(running):
    port, code, log = running
    url = f"http://127.0.0.1:{port}"

    assert wait_until_it_answers(port, log).json()["database"] == "ok"
    too_large = httpx.post(f"{url}/api/v1/runs/", content=bytes(1024 * 1024 + 1), trust_env=False, timeout=60)
    style = httpx.get(f"{url}/static/admin/css/base.css", trust_env=False, timeout=60)
    flood = dashboard(port)
    flood.send(b" " * (1024 * 1024 + 1), TEXT)
    assert too_large.status_code == 413
    assert style.status_code == 200
    assert flood.close_code() in (1006, 1009)

    before = dashboard(port)

    assert end_by_changes(before, code) in (1006, 4001)
    wait_until_it_answers(port, log)
    dashboard(port)
    assert "changed, reloading" in log.read_text()
    assert "Traceback" not in log.read_text()
