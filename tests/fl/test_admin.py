"""Django's admin: to look at everything, to act through the use cases, and to edit nothing."""

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.contrib.messages import get_messages
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from edge.protocol.enrollment import parse_token
from fl import devices, people, runs
from fl.broadcasts import broadcast_error_notification
from fl.models import Assignment, Device, EnrollmentToken, IdempotentRequest, Round, Run
from tests.builders import PLAN, current_round, fleet, participant, person, started_run, step
from tests.fl.noted import noted

pytestmark = pytest.mark.django_db

TABLES = list(apps.get_app_config("fl").get_models())


@pytest.fixture
def admin(client):
    """A client of a person with the role admin, who is staff but no superuser."""
    user = person("ada", "admin")
    user.is_staff = True
    user.save()
    client.force_login(user)
    return client


@pytest.fixture
def rows():
    """A row in every table."""
    now = timezone.now()
    first, second = fleet(2, now=now)
    run = started_run(now)
    step(run, now)
    first.send(now=now)
    user = person("eve")
    people.issue_sign_in_code(user=user, now=now)
    devices.suspend(device=participant(now=now).device, reason="too noisy", now=now, by=user)
    broadcast_error_notification("disk_full", {"title": "The disk is full"})
    IdempotentRequest.objects.create(user=user, key="k", request_hash="h", status=200, answer="{}", created_at=now)
    for table in TABLES:
        assert table.objects.exists(), table
    return run, first, second


def page(table, name, *arguments):
    path = f"/admin/fl/{table._meta.model_name}/"
    return path if name == "changelist" else path + "/".join([*arguments, name]) + "/"


def act(client, table, action, row, **fields):
    """Choose one row and carry out an action on it; return what the page then says."""
    data = {"action": action, "_selected_action": [row.pk], **fields}
    response = client.post(page(table, "changelist"), data)
    assert response.status_code == 302, response.content
    return [str(message) for message in get_messages(response.wsgi_request)]


def test_every_table_is_there():
    assert [table for table in TABLES if not site.is_registered(table)] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_an_admin_looks_at_every_table_and_row(admin, rows, table):
    row = table.objects.first()

    listed, shown = admin.get(page(table, "changelist")), admin.get(page(table, "change", str(row.pk)))

    assert (listed.status_code, shown.status_code) == (200, 200)
    assert b'name="_save"' not in shown.content


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_nobody_edits_adds_or_deletes_a_row_by_hand(admin, rows, table):
    row = table.objects.first()
    before = list(table.objects.order_by("pk").values())

    answers = [admin.post(page(table, "change", str(row.pk)), {"state": "completed"})]
    answers.append(admin.post(page(table, "delete", str(row.pk)), {"post": "yes"}))
    if table is not EnrollmentToken:
        answers.append(admin.post(page(table, "add"), {"name": "x"}))

    assert {answer.status_code for answer in answers} == {403}
    assert list(table.objects.order_by("pk").values()) == before


def test_rows_are_not_deleted_in_bulk_either(admin, rows):
    run, _, _ = rows

    response = admin.post(page(Run, "changelist"), {"action": "delete_selected", "_selected_action": [run.pk]})

    assert Run.objects.filter(pk=run.pk).exists()
    assert b"delete_selected" not in admin.get(page(Run, "changelist")).content
    assert response.status_code in (302, 403)


@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_staff_without_the_role_sees_and_does_nothing(client, rows, role):
    run, _, _ = rows
    user = person("bob", role)
    user.is_staff = True
    user.save()
    client.force_login(user)

    assert client.get(page(Run, "changelist")).status_code == 403
    response = client.post(page(Run, "changelist"), {"action": "stop_now", "_selected_action": [run.pk]})
    assert response.status_code == 403
    run.refresh_from_db()
    assert run.state == "running"


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_steered_by_its_use_cases(admin):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    states = []
    for action in ("start", "pause", "resume", "stop_now"):
        act(admin, Run, action, run)
        run.refresh_from_db()
        states.append(run.state)

    assert states == ["running", "paused", "running", "stopped"]


def test_a_run_stops_after_its_round(admin, rows):
    run, _, _ = rows

    act(admin, Run, "stop_after_round", run)

    run.refresh_from_db()
    assert (run.state, run.stop_after_round) == ("running", True)
    assert current_round(run).state == "training"


def test_a_wrong_move_is_told_and_changes_nothing(admin):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())

    (message,) = act(admin, Run, "resume", run)

    assert "pending" in message
    run.refresh_from_db()
    assert run.state == "pending"


def test_of_many_runs_those_that_can_are_started(admin):
    waiting, started = (runs.create_run(plan=PLAN, created_by=None, now=timezone.now()) for _ in range(2))
    runs.start_run(run=started, now=timezone.now())

    data = {"action": "start", "_selected_action": [waiting.pk, started.pk]}
    response = admin.post(page(Run, "changelist"), data)

    told = sorted(str(message) for message in get_messages(response.wsgi_request))
    assert len(told) == 2
    assert told[0] == "1 run(s) started."
    assert set(Run.objects.values_list("state", flat=True)) == {"running"}


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_is_approved_suspended_reinstated_and_revoked(admin):
    device = participant(auto_approve=False).device
    states = []
    for action in ("approve", "suspend", "reinstate", "revoke"):
        act(admin, Device, action, device, reason="because")
        device.refresh_from_db()
        states.append((device.state, device.state_reason))

    assert [state for state, _ in states] == ["active", "suspended", "active", "revoked"]
    assert (states[1][1], states[3][1]) == ("because", "because")


def test_a_revoked_device_is_not_reinstated(admin):
    device = participant().device
    devices.revoke(device=device, reason="lost", now=timezone.now(), by=None)

    (message,) = act(admin, Device, "reinstate", device)

    assert "revoked" in message
    device.refresh_from_db()
    assert device.state == "revoked"


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_issued_and_its_text_shown_once(admin):
    data = {"label": "greenhouse", "auto_approve": "on", "lifetime_hours": "2"}

    response = admin.post(page(EnrollmentToken, "add"), data)

    token = EnrollmentToken.objects.get()
    text = re.search(r"qfe1\.[\w.-]+", response.content.decode())[0]
    assert (response.status_code, parse_token(text).id) == (200, token.token_id)
    assert (token.label, token.auto_approve, token.created_by.username) == ("greenhouse", True, "ada")
    assert token.expires_at - token.created_at == timedelta(hours=2)
    assert "no-store" in response.headers["Cache-Control"]
    secret = parse_token(text).secret
    assert all(secret not in cookie.value for cookie in admin.cookies.values())
    for name, *key in (["changelist"], ["change", str(token.pk)]):
        shown = admin.get(page(EnrollmentToken, name, *key)).content.decode()
        assert secret not in shown
        assert token.secret_hash not in shown


def test_a_round_of_many_devices_takes_as_many_queries_as_one_of_few(admin):
    counts = []
    for size in (2, 2, 12):  # the first page fills Django's own caches
        now = timezone.now()
        fleet(size, now=now)
        run = started_run(now, cohort_size=size)
        step(run, now)
        with CaptureQueriesContext(connection) as seen:
            admin.get(page(Round, "change", str(run.round_set.get().pk)))
        counts.append(len(seen))

    assert Assignment.objects.count() == 16
    assert counts[1] == counts[2]


@pytest.mark.parametrize("hours", ["0", "-1", "1e12", "soon", ""])
def test_a_token_lives_for_some_time(admin, hours):
    response = admin.post(page(EnrollmentToken, "add"), {"label": "", "lifetime_hours": hours})

    assert response.status_code == 200
    assert not EnrollmentToken.objects.exists()


def test_updates_show_the_manifest_that_was_signed(admin, rows):
    _, first, _ = rows
    update = first.assignment().update

    shown = admin.get(page(type(update), "change", str(update.pk))).content.decode()

    assert "base_digest" in shown


# ── the audit log ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_here_by_a_use_case_is_noted_once_with_its_person_address_and_door(admin):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    device = participant("clinic", auto_approve=False).device
    for action in ("start", "pause", "resume", "stop_now"):
        act(admin, Run, action, run)
    for action in ("approve", "suspend", "reinstate", "revoke"):
        act(admin, Device, action, device)
    admin.post(page(EnrollmentToken, "add"), {"label": "greenhouse", "lifetime_hours": "2"})
    broadcast = {"message": "noon", "audiences": ["admin"], "level": "info"}
    admin.post("/admin/realtime/serverprocess/broadcast/", broadcast)

    by_hand = [
        *[(f"run.{command}", str(run)) for command in ("start", "pause", "resume", "stop")],
        *[(f"device.{command}", "clinic") for command in ("approve", "suspend", "reinstate", "revoke")],
        ("token.issue", "greenhouse"),
        ("broadcast.send", "to admin"),
    ]
    assert noted() == [(what, "ada", subject, "127.0.0.1", "admin") for what, subject in by_hand]


def test_what_is_refused_here_is_not_noted(admin):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())

    act(admin, Run, "pause", run)

    assert noted() == []
