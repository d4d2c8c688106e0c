"""The audit log: what a person does is noted in the transaction that does it, once, and never changed."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from fl import audit, devices, runs, sweeping
from fl.audit import Subject, coming_by
from fl.broadcasts import broadcast
from fl.events import NotInTransaction
from fl.exceptions import Invalid, WrongMove
from fl.lifecycle import RunState
from fl.models import AuditEntry
from fl.models.audit import Act, Door, Unchangeable
from tests.builders import NOW, PLAN, at, fleet, participant, person, started_run, step
from tests.fl.noted import noted

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return person("ada", "admin")


def entry(by=None, **changes):
    """Note something, and return it."""
    values = {"at": NOW, "person": by, "act": Act.RUN_PAUSE, "subject": "r-0001 demo", "door": Door.PAGE, **changes}
    return AuditEntry.objects.create(person_name=by.get_username() if by else "", **values)


# ── what is noted ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_acts_without_a_door_acts_on_the_server_itself(ada):
    _, text = devices.issue_token(label="", auto_approve=False, lifetime=timedelta(hours=1), created_by=ada, now=NOW)

    assert noted() == [("token.issue", "ada", text.id, None, "command")]


def test_an_entry_holds_the_door_and_the_address_by_which_its_person_came(ada):
    with coming_by(Door.SOCKET, "192.0.2.7"):
        run = runs.create_run(plan=PLAN, created_by=ada, now=NOW)
    runs.start_run(run=run, now=at(1), by=ada)

    assert noted() == [
        ("run.create", "ada", str(run), "192.0.2.7", "socket"),
        ("run.start", "ada", str(run), None, "command"),
    ]
    created = AuditEntry.objects.last()
    assert (created.person, created.at, created.subject_kind, created.subject_id) == (ada, NOW, "run", str(run.pk))


@pytest.mark.parametrize(("after_round", "when"), [(True, "after this round"), (False, "now")])
def test_how_a_run_was_stopped_is_noted_as_it_was_done(ada, after_round, when):
    fleet(2)
    run = started_run()
    step(run)

    runs.stop_run(run=run, now=NOW, by=ada, after_round=after_round)

    assert AuditEntry.objects.get().detail == when


def test_a_run_that_trains_nothing_stops_now_whatever_was_asked(ada):
    run = started_run()

    runs.stop_run(run=run, now=NOW, by=ada, after_round=True)

    assert AuditEntry.objects.get().detail == "now"


def test_a_reason_that_was_given_is_noted(ada):
    device = participant("clinic").device

    devices.suspend(device=device, reason="too noisy", now=NOW, by=ada)
    devices.revoke(device=device, reason="", now=NOW, by=ada)

    assert list(AuditEntry.objects.order_by("pk").values_list("act", "detail")) == [
        ("device.suspend", "too noisy"),
        ("device.revoke", ""),
    ]


def test_a_token_is_noted_without_its_secret(ada):
    _, text = devices.issue_token(label="x", auto_approve=True, lifetime=timedelta(hours=1), created_by=ada, now=NOW)

    stored = AuditEntry.objects.values().get()
    assert stored["detail"] == "until 2030-01-01 13:00 UTC, approves at once"
    assert text.secret not in str(stored)


def test_a_broadcast_is_noted_with_what_was_said(ada):
    broadcast(message="maintenance at noon", audiences=["general", "clients"], sender=ada, now=NOW, level="warning")

    stored = AuditEntry.objects.get()
    assert (stored.act, stored.subject, stored.detail) == (
        "broadcast.send",
        "to clients, general",
        "warning: maintenance at noon",
    )


def test_what_nobody_does_is_no_act():
    first, second = fleet(2)
    run = started_run(rounds=1)
    step(run)
    for device in (first, second):
        device.send()
    step(run)

    run.refresh_from_db()
    assert run.state == RunState.COMPLETED
    assert not AuditEntry.objects.exists()


# ── what is not ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_act_that_fails_notes_nothing(ada):
    run = runs.create_run(plan=PLAN, created_by=None, now=NOW)
    device = participant().device

    with pytest.raises(WrongMove):
        runs.resume_run(run=run, now=NOW, by=ada)
    with pytest.raises(WrongMove):
        devices.reinstate(device=device, now=NOW, by=ada)
    with pytest.raises(Invalid):
        broadcast(message="", audiences=["admin"], sender=ada, now=NOW)
    with pytest.raises(Invalid):
        devices.issue_token(label="", auto_approve=False, lifetime=timedelta(0), created_by=ada, now=NOW)

    assert not AuditEntry.objects.exists()


def test_what_is_rolled_back_is_not_noted(ada):
    run = runs.create_run(plan=PLAN, created_by=None, now=NOW)

    with pytest.raises(RuntimeError), transaction.atomic():
        runs.start_run(run=run, now=NOW, by=ada)
        raise RuntimeError("on second thoughts")

    run.refresh_from_db()
    assert run.state == RunState.PENDING
    assert not AuditEntry.objects.exists()


def test_what_cannot_be_noted_is_not_done(ada):
    run = runs.create_run(plan=PLAN, created_by=None, now=NOW)

    def refuse(execute, sql, *arguments):
        if sql.startswith("INSERT") and AuditEntry._meta.db_table in sql:
            raise DatabaseError("the disk is full")
        return execute(sql, *arguments)

    with connection.execute_wrapper(refuse), pytest.raises(DatabaseError):
        runs.start_run(run=run, now=NOW, by=ada)

    run.refresh_from_db()
    assert run.state == RunState.PENDING


@pytest.mark.django_db(transaction=True)
def test_nothing_is_noted_outside_a_transaction(ada):
    with pytest.raises(NotInTransaction):
        audit.note(Act.RUN_PAUSE, Subject("a run"), by=ada, now=NOW)

    assert not AuditEntry.objects.exists()


# ── sign-ins that fail ────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_one_address_only_so_many_failures_are_noted_an_hour(monkeypatch):
    monkeypatch.setattr(audit, "MAX_FAILURES_OF_AN_ADDRESS", 3)

    for second in range(5):
        with coming_by(Door.PAGE, "192.0.2.7"):
            audit.note_failed_sign_in("eve", now=at(second))
    with coming_by(Door.PAGE, "192.0.2.8"):
        audit.note_failed_sign_in("eve", now=at(6))
    with coming_by(Door.PAGE, "192.0.2.7"):
        audit.note_failed_sign_in("eve", now=at(3602))

    found = AuditEntry.objects.order_by("pk").values_list("address", "at", "detail")
    assert list(found) == [
        ("192.0.2.7", at(0), ""),
        ("192.0.2.7", at(1), ""),
        ("192.0.2.7", at(2), audit.LAST_FAILURE),
        ("192.0.2.8", at(6), ""),
        ("192.0.2.7", at(3602), ""),
    ]


def test_of_all_addresses_only_so_many_failures_are_noted_an_hour(monkeypatch):
    monkeypatch.setattr(audit, "MAX_FAILURES", 3)

    for number in range(5):
        with coming_by(Door.PAGE, f"192.0.2.{number}"):
            audit.note_failed_sign_in("eve", now=at(number))

    assert AuditEntry.objects.count() == 3


def test_a_name_that_was_tried_is_cut_and_has_nothing_in_it_that_cannot_be_shown():
    audit.note_failed_sign_in("e\0v\x1be\n" + "x" * 500, now=NOW)

    assert AuditEntry.objects.get().subject == "eve" + "x" * 197


# ── it stays as it is ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_entry_is_not_changed_and_not_deleted(ada):
    made = entry(ada)
    made.subject = "another"

    attempts = [
        made.save,
        lambda: made.save(update_fields=["subject"]),
        made.delete,
        lambda: AuditEntry.objects.update(subject="another"),
        lambda: AuditEntry.objects.filter(pk=made.pk).update(subject="another"),
        lambda: AuditEntry.objects.bulk_update([made], ["subject"]),
        lambda: AuditEntry.objects.update_or_create(pk=made.pk, defaults={"subject": "another"}),
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.get().delete(),
    ]
    for attempt in attempts:
        with pytest.raises(Unchangeable), transaction.atomic():
            attempt()

    assert AuditEntry.objects.get().subject == "r-0001 demo"


def test_an_entry_is_not_put_in_the_place_of_another(ada):
    made = entry(ada)

    with pytest.raises(IntegrityError), transaction.atomic():
        AuditEntry(pk=made.pk, at=NOW, act=Act.RUN_STOP, door=Door.PAGE).save()

    assert AuditEntry.objects.get().act == Act.RUN_PAUSE


def test_a_persons_name_stays_when_the_person_is_gone(ada):
    entry(ada)

    ada.delete()

    kept = AuditEntry.objects.get()
    assert (kept.person, kept.person_name) == (None, "ada")


@pytest.mark.parametrize(("days", "left"), [(400, ["young"]), (500, ["old", "young"]), (0, ["old", "young"])])
def test_entries_past_their_time_are_swept_and_none_where_they_stay_for_ever(settings, days, left):
    settings.QFLARE_AUDIT_DAYS = days
    entry(subject="old", at=NOW - timedelta(days=401))
    entry(subject="young", at=NOW - timedelta(days=399))

    sweeping.sweep(now=NOW)

    assert list(AuditEntry.objects.order_by("pk").values_list("subject", flat=True)) == left
