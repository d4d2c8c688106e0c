"""What watches the server is told: that it answers, whether it may be given work, and figures, to whom they are for."""

import os
import subprocess
import sys

import httpx
import pytest
from django.conf import settings as project_settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from qflare.logs import PROBES as UNNOTED
from realtime.probes import ALIVE, READY
from tests.asgi import get
from tests.builders import participant, person, started_run
from tests.realtime.servers import ROOT, start_server
from tests.realtime.test_connections_and_broadcasts import process
from tests.services.postgres import restartable_cluster


def figures(text):
    """Read Prometheus' text format: name with labels → value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


# ── does it answer, may it be given work ──────────────────────────────────────────────────────────────────────────────


def test_a_process_that_answers_says_so_and_asks_no_database():
    # Without a mark for the database a query would be an error.
    response = get(ALIVE, {})

    assert (response.status_code, response.content) == (200, b"ok\n")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize("path", [ALIVE, READY])
@pytest.mark.django_db(transaction=True)
def test_whoever_asks_by_another_name_or_an_address_is_answered_too(path):
    assert get(path, {"Host": "10.1.2.3:8000"}).status_code == 200
    assert get(path, {}, method="HEAD").status_code == 200
    assert get(path, {}, method="POST").status_code == 405


@pytest.mark.django_db
def test_all_else_is_for_the_names_of_the_server_alone():
    assert Client(headers={"Host": "10.1.2.3:8000"}).get("/metrics").status_code == 400


@pytest.mark.django_db
def test_a_server_that_has_all_it_needs_is_ready():
    response = Client().get(READY)

    assert (response.status_code, response.content) == (200, b"ok\n")


@pytest.mark.django_db
def test_a_migration_that_the_database_has_not_had_is_named(caplog):
    newest = MigrationRecorder(connection).migration_qs.filter(app="realtime").order_by("-name").first()
    name = newest.name
    newest.delete()

    response = Client().get(READY)

    assert response.status_code == 503
    assert response.content.decode() == f"migrations: not applied: realtime.{name}\n"
    assert caplog.records == []


def test_a_layer_that_is_away_is_named(db, redis_layer):
    assert Client().get(READY).status_code == 200

    redis_layer.stop()
    response = Client().get(READY)

    assert (response.status_code, response.content) == (503, b"channel layer: away\n")


def test_no_answer_to_a_probe_is_noted_in_the_log():
    assert {ALIVE, READY} == UNNOTED
    assert "without_probes" in project_settings.LOGGING["loggers"]["django.request"]["filters"]


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def signed_in(role):
    client = Client()
    client.force_login(person(role or "nobody", role))
    return client


@pytest.mark.django_db
def test_figures_are_for_viewers_and_nobody_else(settings):
    assert signed_in("viewer").get("/metrics").status_code == 200
    assert signed_in("").get("/metrics").status_code == 403
    refused = Client().get("/metrics")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    settings.QFLARE_PUBLIC_DASHBOARD = True
    assert Client().get("/metrics").status_code == 401


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("said", "status"),
    [("Bearer secret", 200), ("Bearer secre", 401), ("Bearer sécret", 401), ("secret", 401), ("Bearer ", 401)],
)
def test_the_token_opens_them_and_nothing_like_it(settings, said, status):
    settings.QFLARE_METRICS_TOKEN = "secret"

    assert Client(headers={"Authorization": said}).get("/metrics").status_code == status


@pytest.mark.django_db
def test_where_no_token_is_set_an_empty_one_opens_nothing(settings):
    settings.QFLARE_METRICS_TOKEN = ""

    assert Client(headers={"Authorization": "Bearer "}).get("/metrics").status_code == 401


@pytest.mark.django_db
def test_the_figures_are_those_of_all_live_processes():
    now = timezone.now()
    process("one", now)
    process("two", now, connections={"dashboard": 1}, events_per_second=5.5)
    participant("clinic").connect()
    participant("away")
    started_run()

    response = signed_in("viewer").get("/metrics")

    found = figures(response.content.decode())
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert found['qflare_connections{type="dashboard"}'] == 3
    assert found['qflare_connections{type="general"}'] == 0
    assert (found["qflare_queued_frames"], found["qflare_sent_bytes"]) == (6, 2000)
    assert (found["qflare_events_per_second"], found["qflare_server_processes"]) == (5.5, 2)
    assert (found['qflare_runs{state="running"}'], found['qflare_runs{state="failed"}']) == (1, 0)
    assert found["qflare_devices_online"] == 1


@pytest.mark.django_db
def test_every_figure_says_what_it_is():
    text = signed_in("viewer").get("/metrics").content.decode()

    names = {name.partition("{")[0] for name in figures(text)}
    described = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names == described == typed
    assert text.endswith("\n")


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────

RECORD = """
from django.utils import timezone
from edge.protocol.server import ErrorNotification
from fl import events
with events.transaction():
    for detail in ("plain", "with a nul: \\0"):
        events.record("system", ErrorNotification(code="x", title="odd", detail=detail, run_id=4), timezone.now())
"""


def test_on_postgresql_events_are_found_and_a_database_that_is_away_is_named(tmp_path):
    with restartable_cluster() as cluster:
        environment = {**os.environ, "DATABASE_URL": cluster.url, "QFLARE_DATA_DIR": str(tmp_path), "REDIS_URL": ""}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        own = {"DATABASE_URL": cluster.url, "QFLARE_PUBLIC_DASHBOARD": "1", "QFLARE_DATABASE_WAIT_SECONDS": "0.5"}
        server = start_server(tmp_path, environment=own)
        try:
            server.manage("shell", "-v0", "-c", RECORD)
            pages = [
                httpx.get(f"{server.url}/events/?{query}&format=jsonl", timeout=60).text.splitlines()
                for query in ("severity=errors", "severity=errors&run=4&q=A+NUL:", "run=5", "q=%00plain&device=7")
            ]
            page = httpx.get(f"{server.url}/events/?severity=errors&run=4", timeout=60)
            health = httpx.get(f"{server.url}/health/", timeout=60)
            ready = httpx.get(server.url + READY, timeout=60)
            cluster.stop()
            away = httpx.get(server.url + READY, timeout=60)
            alive = httpx.get(f"{server.url}/healthz", timeout=60)
            cluster.start()
            back = httpx.get(server.url + READY, timeout=60)
        finally:
            server.stop()

    assert [len(lines) for lines in pages] == [2, 1, 0, 0]
    assert (page.status_code, page.text.count("As it was sent")) == (200, 2)
    assert (health.status_code, "PostgreSQL" in health.text) == (200, True)
    assert (ready.status_code, ready.text) == (200, "ok\n")
    assert (away.status_code, away.text) == (503, "database: away\n")
    assert (alive.status_code, alive.text) == (200, "ok\n")
    assert back.status_code == 200
    assert READY not in server.log
