"""The page of the server's health: what it shows was measured, or it says that it was not."""

import asyncio
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from edge.protocol.server import Position
from fl.models import Round, Stream
from realtime.log import StreamHead, read_heads
from realtime.process import this_process
from realtime.report import lag_between, measure
from realtime.statistics import lease
from tests.builders import person, started_run
from tests.fl.views.answers import text_of
from tests.fl.views.test_doors import InlineFinder
from tests.realtime.acts import note, record_now
from tests.realtime.sockets import Socket
from tests.realtime.test_connections_and_broadcasts import process


def signed_in(role):
    client = Client()
    client.force_login(person(role or "nobody", role))
    return client


def page(role="viewer"):
    return signed_in(role).get("/health/")


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_it_is_for_viewers_and_for_everybody_where_the_dashboard_is_public(settings):
    assert Client().get("/health/").url == "/login/?next=/health/"
    assert page("").status_code == 403
    settings.QFLARE_PUBLIC_DASHBOARD = True
    assert Client().get("/health/").status_code == 200


@pytest.mark.django_db
def test_database_layer_disk_and_versions_are_told():
    text = text_of(page())

    assert re.search(r"Kind SQLite 3\.\d", text)
    assert re.search(r"Answered SELECT 1 in \d+\.\d\d ms", text)
    assert re.search(r"Size \d+\.\d [kMG]B", text)
    assert re.search(r"Free \d+\.\d GB of \d+\.\d GB, \d+\.\d\d %", text)
    assert re.search(r"QFLARE 0\.\d+\.\d+ Python 3\.\d+\.\d+ Django 5\.2\.\d+ torch 2\.", text)
    assert "in memory, for this process alone" in text


@pytest.mark.django_db
def test_paths_and_names_of_machines_are_for_admins_alone(settings):
    process("host-4711-abcdef", timezone.now())
    hidden = ["host-4711-abcdef", str(settings.QFLARE_DATA_DIR), str(connection.settings_dict["NAME"])]

    seen = {role: page(role).content.decode() for role in ("viewer", "operator", "admin")}
    settings.QFLARE_PUBLIC_DASHBOARD = True
    seen["anybody"] = Client().get("/health/").content.decode()

    for role, html in seen.items():
        assert [text for text in hidden if text in html] == (hidden if role == "admin" else []), role


@pytest.mark.django_db
def test_processes_are_told_with_their_sockets_and_those_that_fell_silent_as_such():
    now = timezone.now()
    process("one", now)
    process("two", now - lease() - timedelta(seconds=1))

    text = text_of(page("admin"))

    assert "told by 1 live process," in text
    assert "Dashboards 2 open Devices 5 open" in text
    assert re.search(r"one Alive .* two Silent", text)
    assert "Waiting in queues 3 frames, 900 B" in text


@pytest.mark.django_db
def test_a_coordinator_at_work_is_told_by_its_claim():
    run = started_run(name="winter")
    assert "None aggregates or evaluates" in text_of(page())
    Round.objects.filter(run=run).update(claim_token="t", claimed_until=timezone.now() + timedelta(seconds=9))

    assert re.search(r"winter round 1 .* claimed until", text_of(page("operator")))


@pytest.mark.django_db
def test_it_takes_as_many_queries_however_many_processes_and_streams_there_are():
    client = signed_in("viewer")

    def queries():
        with CaptureQueriesContext(connection) as captured:
            client.get("/health/")
        return len(captured)

    few = queries()
    for number in range(20):
        process(f"process {number}", timezone.now())
        Stream.objects.create(name=f"run:{number}", head=number)

    assert queries() == few <= 14


@pytest.mark.django_db
def test_nothing_in_its_markup_breaks_the_policy():
    process("one", timezone.now())
    finder = InlineFinder()

    finder.feed(page("admin").content.decode())

    assert finder.found == []


# ── the lag ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def head(name, seq, epoch="e"):
    return StreamHead(name=name, epoch=epoch, head=seq, task="", public=False)


def reached(**seqs):
    return {name: Position(epoch="e", seq=seq) for name, seq in seqs.items()}


@pytest.mark.django_db
def test_the_lag_is_what_is_recorded_and_not_handed_out():
    now = timezone.now()
    record_now("system", note(), note(), note())
    epoch = Stream.objects.get(pk="system").epoch

    behind = lag_between(read_heads(frozenset()), {"system": Position(epoch=epoch, seq=1)}, now + timedelta(seconds=30))

    assert behind.events == 2
    assert 29 < behind.oldest_seconds <= 31


@pytest.mark.django_db
def test_a_stream_that_nobody_knows_here_is_all_news_and_one_that_is_ahead_is_no_lag():
    now = timezone.now()

    assert lag_between([head("a", 3)], {}, now).events == 3
    assert lag_between([head("a", 3, epoch="f")], reached(a=3), now).events == 3
    assert lag_between([head("a", 3), head("b", 1)], reached(a=4, b=1), now).events == 0


async def test_a_process_with_sockets_measures_its_lag_and_one_without_does_not(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_POLL_SECONDS = 3600
    this_process()
    assert (await asyncio.to_thread(measure, timezone.now())).lag is None

    socket = await Socket("/ws/dashboard").connect()
    await socket.opened()
    await asyncio.to_thread(record_now, "system", note("seen"))
    await socket.until("error_notification")

    report = await asyncio.to_thread(measure, timezone.now())
    assert report.lag.events == 0
    assert report.layer.state == "in_memory"
    await socket.leave()


async def test_what_the_layer_lost_is_a_lag_until_the_log_is_looked_at(loop, settings, monkeypatch):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_POLL_SECONDS = 3600
    socket = await Socket("/ws/dashboard").connect()
    await socket.opened()
    await asyncio.to_thread(record_now, "system", note("first"))
    await socket.until("error_notification")

    # Written past the signals, as another process does whose messages do not get here.
    monkeypatch.setattr("fl.events.event_recorded.send_robust", lambda *_, **__: [])
    await asyncio.to_thread(record_now, "system", note("lost"))
    before = await asyncio.to_thread(measure, timezone.now())
    await this_process().hub.poll()
    await socket.until("error_notification")
    after = await asyncio.to_thread(measure, timezone.now())

    assert (before.lag.events, after.lag.events) == (1, 0)
    await socket.leave()
