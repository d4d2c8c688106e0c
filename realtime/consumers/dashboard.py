"""Dashboards (`/ws/dashboard`): the runs, devices and errors that people with a role may see."""

from realtime.consumers.people import PeopleConsumer
from realtime.groups import Kind


class DashboardConsumer(PeopleConsumer):
    """A person who watches; where the dashboard is public, everybody."""

    kind = Kind.DASHBOARD
