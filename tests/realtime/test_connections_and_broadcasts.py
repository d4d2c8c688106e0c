"""Figures of connections and broadcasts, from REST and from the Django admin."""

import asyncio
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from fl.models import Event
from realtime.models import ServerProcess
from realtime.process import this_process
from realtime.statistics import Figures, Rates, connection_statistics, forget, lease, write
from tests.builders import person
from tests.realtime.sockets import Socket

BROADCAST = {"message": "maintenance at noon", "audiences": ["clients", "dashboard"], "level": "warning"}
FORM = "/admin/realtime/serverprocess/broadcast/"


def figures(**changes):
    values = {
        "connections": {"dashboard": 2, "clients": 5},
        "queued_frames": 3,
        "queued_bytes": 900,
        "longest_queue": 2,
        "behind": 1,
        "events_per_second": 4.0,
        "frames_per_second": 28.0,
        "bytes_sent": 1000,
        "bytes_received": 10,
    }
    return Figures(**{**values, **changes})


def process(instance, now, **changes):
    write(instance=instance, started_at=now, figures=figures(**changes), now=now)


def signed_in(role, name="ada"):
    client = Client()
    client.force_login(person(name, role))
    return client


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_figures_are_summed_over_the_processes_that_live():
    now = timezone.now()
    process("one", now)
    process("two", now, connections={"dashboard": 1}, longest_queue=7, events_per_second=5.0)
    process("dead", now - lease() - timedelta(seconds=1))

    found = connection_statistics(now)

    assert found.connections == {"dashboard": 3, "clients": 5, "admin": 0, "general": 0}
    assert (found.total, found.processes, found.queued_frames) == (8, 2, 6)
    assert (found.longest_queue, found.events_per_second, found.frames_per_second) == (7, 5.0, 56.0)
    assert (found.bytes_sent, found.bytes_received) == (2000, 20)


@pytest.mark.django_db
def test_a_process_has_one_row_and_takes_it_back_and_old_ones_are_forgotten():
    now = timezone.now()
    process("old", now - timedelta(hours=2))
    process("one", now)
    process("one", now, queued_frames=9)
    assert list(ServerProcess.objects.values_list("instance", "queued_frames")) == [("one", 9)]

    forget("one")

    assert not ServerProcess.objects.exists()


def test_rates_are_per_second_since_they_were_last_asked_for():
    rates = Rates(at=0.0)

    assert rates.since_last(frames=100, events=10, now=10.0) == (10.0, 1.0)
    assert rates.since_last(frames=150, events=10, now=10.5) == (10.0, 1.0)
    assert rates.since_last(frames=200, events=30, now=20.0) == (10.0, 2.0)


async def test_a_process_counts_what_it_has_open(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    sockets = [await Socket("/ws/dashboard").connect(), await Socket("/ws").connect()]
    for socket in sockets:
        await socket.opened()

    await this_process().write_statistics()

    found = await asyncio.to_thread(connection_statistics, timezone.now())
    assert (found.connections["dashboard"], found.connections["general"], found.total) == (1, 1, 2)


@pytest.mark.django_db
@pytest.mark.parametrize(("role", "status"), [("", 403), ("viewer", 403), ("operator", 200), ("admin", 200)])
def test_figures_are_for_operators(role, status):
    process("one", timezone.now())

    answer = signed_in(role).get("/api/v1/connections/")

    assert answer.status_code == status
    if status == 200:
        assert answer.json()["connections"] == {"dashboard": 2, "clients": 5, "admin": 0, "general": 0}


@pytest.mark.django_db
def test_nobody_in_particular_sees_no_figures():
    assert Client().get("/api/v1/connections/").status_code == 401


# ── broadcasts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def post(client, body, **headers):
    return client.post("/api/v1/broadcasts/", body, content_type="application/json", headers=headers)


@pytest.mark.django_db(transaction=True)
def test_a_broadcast_is_one_event_in_each_audience_with_its_sender(caplog):
    caplog.set_level("INFO")

    answer = post(signed_in("admin"), BROADCAST)

    assert answer.status_code == 201, answer.content
    assert answer.json()["sender"] == "ada"
    rows = list(Event.objects.values_list("stream_id", "event").order_by("stream_id"))
    assert rows == [("audience:clients", "broadcast"), ("audience:dashboard", "broadcast")]
    assert "ada broadcast to clients, dashboard" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_the_same_key_says_it_once():
    client = signed_in("admin")

    answers = [post(client, BROADCAST, **{"Idempotency-Key": "k"}) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert Event.objects.count() == 2
    assert post(client, {**BROADCAST, "message": "other"}, **{"Idempotency-Key": "k"}).status_code == 409


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_only_admins_broadcast(role):
    assert post(signed_in(role), BROADCAST).status_code == 403
    assert not Event.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "changes", [{"message": ""}, {"message": "x" * 2001}, {"audiences": []}, {"audiences": ["moon"]}, {"level": "loud"}]
)
def test_a_broadcast_that_cannot_be_is_refused_and_nothing_is_said(changes):
    answer = post(signed_in("admin"), {**BROADCAST, **changes})

    assert answer.status_code == 422
    assert next(iter(changes)) in answer.json()["error"]["message"]
    assert not Event.objects.exists()


# ── the admin ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def staff(role, name="ada"):
    user = person(name, role)
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.django_db(transaction=True)
def test_the_admin_lists_processes_and_leads_to_the_form_that_broadcasts():
    process("one", timezone.now())
    client = staff("admin")

    listing = client.get("/admin/realtime/serverprocess/").content.decode()
    assert "7 connections on 1 live" in listing
    assert FORM in listing
    assert client.get(FORM).status_code == 200
    answer = client.post(FORM, BROADCAST, follow=True)

    assert "Sent to clients, dashboard" in answer.content.decode()
    assert Event.objects.count() == 2


@pytest.mark.django_db
def test_the_form_says_what_is_wrong():
    answer = staff("admin").post(FORM, {**BROADCAST, "audiences": []})

    assert answer.status_code == 200
    assert "required" in answer.content.decode()
    assert not Event.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_staff_without_the_role_may_neither_look_nor_speak(role):
    client = staff(role)

    assert client.get("/admin/realtime/serverprocess/").status_code == 403
    assert client.post(FORM, BROADCAST).status_code == 403
