"""Anybody (`/ws`): broadcasts to all, and the runs that are marked public."""

from realtime.consumers.people import PeopleConsumer
from realtime.groups import Kind


class GeneralConsumer(PeopleConsumer):
    """Somebody, signed in or not: all see the same here."""

    kind = Kind.GENERAL
