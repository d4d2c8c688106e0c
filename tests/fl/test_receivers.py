"""Signing in and out, and what is changed by hand in Django's admin, is noted in the audit log."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone

from fl import people
from fl.models import AuditEntry
from fl.models.audit import Act
from tests.builders import person
from tests.fl.noted import noted, noted_of

pytestmark = pytest.mark.django_db

HERE = "192.0.2.7"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def root(client):
    """A client of a superuser, who alone may edit people."""
    client.force_login(User.objects.create_superuser("root", password=PASSWORD))
    return client


def post(client, path, data=None):
    return client.post(path, data or {}, REMOTE_ADDR=HERE)


# ── signing in and out ────────────────────────────────────────────────────────────────────────────────────────────────


def test_signing_in_and_out_is_noted(client):
    vera = person("vera", "viewer")

    post(client, reverse("login"), {"username": "vera", "password": PASSWORD})
    post(client, reverse("logout"))

    assert noted_of(Act.PERSON_SIGN_IN) == [("person.sign_in", "vera", "vera", HERE, "page")]
    assert noted_of(Act.PERSON_SIGN_OUT) == [("person.sign_out", "vera", "vera", HERE, "page")]
    assert set(AuditEntry.objects.values_list("person", flat=True)) == {vera.pk}


def test_signing_in_by_the_admin_is_noted_with_that_door(client):
    User.objects.create_superuser("root", password=PASSWORD)

    post(client, "/admin/login/", {"username": "root", "password": PASSWORD})

    assert noted_of(Act.PERSON_SIGN_IN) == [("person.sign_in", "root", "root", HERE, "admin")]


@pytest.mark.parametrize("name", ["vera", "nobody of this name"])
def test_a_sign_in_that_fails_is_noted_with_the_name_that_was_tried_and_never_the_password(client, name):
    person("vera", "viewer")

    post(client, reverse("login"), {"username": name, "password": "secret word"})

    stored = AuditEntry.objects.values().get()
    assert noted_of(Act.PERSON_SIGN_IN_FAILED) == [("person.sign_in_failed", "", name, HERE, "page")]
    assert stored["person_id"] is None
    assert "secret word" not in str(stored)


def test_a_code_signs_in_and_is_noted_and_so_is_one_that_does_not(client):
    code = people.issue_sign_in_code(user=person("vera", "viewer"), now=timezone.now())

    post(client, reverse("sign-in"), {"code": code})
    post(client, reverse("sign-in"), {"code": code})

    (failed,) = AuditEntry.objects.filter(act=Act.PERSON_SIGN_IN_FAILED)
    assert noted_of(Act.PERSON_SIGN_IN) == [("person.sign_in", "vera", "vera", HERE, "page")]
    assert (failed.person, failed.subject, failed.detail) == (None, "", "with a sign-in code")
    assert code not in str(list(AuditEntry.objects.values()))


def test_signing_out_of_a_session_that_has_ended_is_no_act(client):
    post(client, reverse("logout"))

    assert not AuditEntry.objects.exists()


# ── by hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_who_is_added_changed_and_deleted_by_hand_is_noted_each_time(root):
    operators = Group.objects.get_or_create(name="operator")[0]
    added = {"username": "omar", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    post(root, "/admin/auth/user/add/", added)
    omar = User.objects.get(username="omar")
    changed = {"username": "omar", "is_active": "on", "groups": [operators.pk], "email": "omar@example.org"}
    changed |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    post(root, f"/admin/auth/user/{omar.pk}/change/", changed)
    post(root, f"/admin/auth/user/{omar.pk}/delete/", {"post": "yes"})

    assert not User.objects.filter(username="omar").exists()
    assert noted() == [
        ("admin.add", "root", "omar", HERE, "admin"),
        ("admin.change", "root", "omar", HERE, "admin"),
        ("admin.delete", "root", "omar", HERE, "admin"),
    ]
    _, change, _ = AuditEntry.objects.filter(act__startswith="admin.").order_by("pk")
    assert "Groups" in change.detail
    assert change.detail.endswith("Role: operator.")
    assert "omar@example.org" not in change.detail
    assert (change.subject_kind, change.subject_id) == ("user", str(omar.pk))


def test_that_a_password_was_set_is_noted_and_not_the_password(root):
    vera = person("vera", "viewer")
    values = {"usable_password": "true", "password1": "another staple battery", "password2": "another staple battery"}

    post(root, f"/admin/auth/user/{vera.pk}/password/", {**values, "set-password": "1"})

    vera.refresh_from_db()
    assert vera.check_password("another staple battery")
    assert noted() == [("admin.change", "root", "vera", HERE, "admin")]
    stored = AuditEntry.objects.values().get(act="admin.change")
    assert "password" in stored["detail"].lower()
    assert "another staple" not in str(stored)


def test_each_of_many_that_are_deleted_at_once_is_noted(root):
    gone = [person(name) for name in ("omar", "vera")]

    chosen = {"action": "delete_selected", "_selected_action": [row.pk for row in gone], "post": "yes"}
    post(root, "/admin/auth/user/", chosen)

    assert not User.objects.filter(username__in=["omar", "vera"]).exists()
    assert sorted(noted()) == [
        ("admin.delete", "root", "omar", HERE, "admin"),
        ("admin.delete", "root", "vera", HERE, "admin"),
    ]


def test_a_group_that_is_added_by_hand_is_noted(root):
    post(root, "/admin/auth/group/add/", {"name": "night shift"})

    assert noted() == [("admin.add", "root", "night shift", HERE, "admin")]


def test_what_the_admin_does_by_a_use_case_is_noted_once(root):
    post(root, "/admin/fl/enrollmenttoken/add/", {"label": "greenhouse", "lifetime_hours": "2"})

    assert LogEntry.objects.count() == 1
    assert noted() == [("token.issue", "root", "greenhouse", HERE, "admin")]


def test_what_is_refused_by_hand_is_not_noted(root):
    post(root, "/admin/auth/group/add/", {"name": ""})

    assert noted() == []
