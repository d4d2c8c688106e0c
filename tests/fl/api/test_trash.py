"""The trash over REST: admins delete, restore and protect; a command that is sent twice is done once."""

from datetime import timedelta

import pytest
from django.utils import timezone

from fl import runs
from fl.models import AuditEntry, Run
from fl.models.audit import Act
from tests.builders import started_run
from tests.fl.api.conftest import error_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def ended():
    run = started_run(timezone.now())
    runs.stop_run(run=run, now=timezone.now())
    return run


def address(run, command=""):
    return f"/api/v1/runs/{run.pk}/{command}"


def delete(client, run, **headers):
    return client.delete(address(run), headers=headers)


def test_an_admin_moves_a_run_to_the_trash_lists_it_there_and_restores_it(admin, viewer, ended):
    before = viewer.get(address(ended)).json()

    gone = delete(admin, ended)
    listed = admin.get("/api/v1/runs/trash/").json()
    answers = [viewer.get(address(ended, part)).status_code for part in ("", "rounds/", "models/", "series/")]
    others = viewer.get("/api/v1/runs/").json()["count"]
    back = admin.post(address(ended, "restore/"))

    assert gone.status_code == 200
    assert (gone.json()["id"], listed["count"], listed["results"]) == (ended.pk, 1, [gone.json()])
    ended.refresh_from_db()
    assert gone.json()["goes_at"] > (timezone.now() + timedelta(days=29)).isoformat()
    assert (answers, others) == ([404] * 4, 0)
    assert (back.status_code, back.json()) == (200, before)
    assert admin.get("/api/v1/runs/trash/").json()["results"] == []


COMMANDS = [("delete", ""), ("post", "restore/"), ("post", "protect/"), ("post", "unprotect/")]


@pytest.mark.parametrize(("method", "command"), COMMANDS)
@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_whoever_is_no_admin_is_refused(signed_in, ended, role, method, command):
    response = getattr(signed_in(role), method)(address(ended, command))

    assert (response.status_code, error_of(response)) == (403, "not_allowed")
    ended.refresh_from_db()
    assert (ended.deleted_at, ended.is_protected) == (None, False)


@pytest.mark.parametrize(("method", "command"), COMMANDS)
def test_where_the_dashboard_is_public_nobody_is_still_nobody(anybody, settings, ended, method, command):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert getattr(anybody, method)(address(ended, command)).status_code == 401
    assert anybody.get("/api/v1/runs/trash/").status_code == 401


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_the_trash_is_for_admins_to_read(signed_in, role):
    assert signed_in(role).get("/api/v1/runs/trash/").status_code == 403


def test_a_run_that_has_not_ended_is_a_conflict(admin, training):
    run, _ = training

    response = delete(admin, run)

    assert (response.status_code, error_of(response)) == (409, "run_is_open")
    assert response.json()["error"]["action"] == "stop it first"


def test_a_protected_run_says_so_and_is_a_conflict(admin, viewer, ended):
    protected = admin.post(address(ended, "protect/"))
    refused = delete(admin, ended)
    seen = viewer.get(address(ended)).json()["is_protected"]
    unprotected = admin.post(address(ended, "unprotect/"))

    assert (protected.json()["is_protected"], seen, unprotected.json()["is_protected"]) == (True, True, False)
    assert (refused.status_code, error_of(refused)) == (409, "run_is_protected")
    assert delete(admin, ended).status_code == 200


def test_what_is_not_there_answers_404(admin, ended):
    assert admin.post(address(ended, "restore/")).status_code == 404
    delete(admin, ended)

    assert delete(admin, ended).status_code == 404
    assert admin.post(address(ended, "protect/")).status_code == 404
    assert admin.patch(address(ended), {"name": "x"}, content_type="application/json").status_code == 404


def test_a_command_under_a_key_is_done_once_and_answers_the_same(admin, ended):
    first, again = (delete(admin, ended, idempotency_key="k1") for _ in range(2))
    back, back_again = (admin.post(address(ended, "restore/"), headers={"Idempotency-Key": "k2"}) for _ in range(2))

    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())
    assert (back.status_code, back_again.status_code, back_again.json()) == (200, 200, back.json())
    assert again.headers["Idempotent-Replayed"] == back_again.headers["Idempotent-Replayed"] == "true"
    assert Run.objects.get().deleted_at is None
    acts = AuditEntry.objects.filter(act__in=[Act.RUN_TRASH, Act.RUN_RESTORE]).order_by("pk")
    assert list(acts.values_list("act", flat=True)) == [Act.RUN_TRASH, Act.RUN_RESTORE]


def test_a_series_says_that_its_run_is_in_the_trash(admin, viewer, ended):
    delete(admin, ended)

    assert error_of(viewer.get(address(ended, "series/"))) == "in_trash"
