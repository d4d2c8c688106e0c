"""The three roles: groups that are there after each migration, and each includes those below it."""

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User

from fl.roles import GROUPS, Role, make_groups, role_names, role_of
from tests.builders import person

pytestmark = pytest.mark.django_db


def test_the_groups_are_made_and_making_them_again_changes_nothing():
    assert set(Group.objects.values_list("name", flat=True)) >= set(GROUPS)

    make_groups()

    assert Group.objects.filter(name__in=GROUPS).count() == 3


@pytest.mark.parametrize(
    ("name", "role"),
    [("", Role.NONE), ("viewer", Role.VIEWER), ("operator", Role.OPERATOR), ("admin", Role.ADMIN)],
)
def test_a_person_has_the_role_of_the_group(name, role):
    assert role_of(person("ada", name)) is role


def test_the_highest_of_several_groups_counts_and_other_groups_do_not():
    ada = person("ada", "operator")
    ada.groups.add(Group.objects.get(name="viewer"), Group.objects.create(name="choir"))

    assert role_of(ada) is Role.OPERATOR


def test_superusers_are_admins_and_who_is_not_active_is_nobody():
    root = User.objects.create_superuser("root", password="correct horse battery staple")
    assert role_of(root) is Role.ADMIN

    root.is_active = False

    assert role_of(root) is Role.NONE
    assert role_of(AnonymousUser()) is Role.NONE


def test_a_role_includes_those_below_it():
    assert role_names(Role.NONE) == []
    assert role_names(Role.OPERATOR) == ["viewer", "operator"]
    assert role_names(Role.ADMIN) == ["viewer", "operator", "admin"]
