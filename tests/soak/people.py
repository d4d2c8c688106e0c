"""Who watches: people with a session each, so that no limit of one person's connections is met."""

from django.contrib.auth.models import Group, User
from django.test import Client


def make(count):
    """Make so many viewers, and print a session's key for each."""
    viewers = Group.objects.get(name="viewer")
    for number in range(count):
        viewer = User.objects.create_user(f"viewer-{number}")
        viewer.groups.add(viewers)
        client = Client()
        client.force_login(viewer)
        print(f"session {client.session.session_key}", flush=True)
