"""The three roles of people: Django groups, the same on pages, REST and sockets."""

from enum import IntEnum
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, User


class Role(IntEnum):
    """What a person may do; each role may do what the ones below it may."""

    NONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


GROUPS = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}


def role_of(user: AbstractBaseUser | AnonymousUser) -> Role:
    """Return the highest role of a person; superusers are admins, people who are not active have none."""
    if not user.is_active or not isinstance(user, User):
        return Role.NONE
    if user.is_superuser:
        return Role.ADMIN
    # Through all(), so that groups which were prefetched cost no query.
    names = [group.name for group in user.groups.all()]
    return max((GROUPS[name] for name in names if name in GROUPS), default=Role.NONE)


def role_names(role: Role) -> list[str]:
    """Return the names of a role and of those it includes."""
    return [name for name, value in GROUPS.items() if value <= role]


def make_groups(**_: Any) -> None:
    """Make the three groups where they are missing; runs after each migration."""
    for name in GROUPS:
        Group.objects.get_or_create(name=name)
