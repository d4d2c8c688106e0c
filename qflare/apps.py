"""The project as an application: it brings the commands that run it."""

from django.apps import AppConfig


class QflareConfig(AppConfig):
    name = "qflare"
