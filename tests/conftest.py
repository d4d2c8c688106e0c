"""What every test may use: the services, light settings, and Hypothesis without deadlines."""

from pathlib import Path

import hypothesis
import pytest
from django.conf import settings as project_settings

pytest_plugins = [
    *(f"tests.services.{name}" for name in ("certificates", "chromium", "postgres", "redis")),
    "tests.scenarios.results",
    "tests.workers",
]

# Machines are shared: how long an example takes says nothing about whether the law holds.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def static_folder():
    """Where static files would be, had anybody collected them; to miss it is worth a warning, and so an error."""
    Path(project_settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(autouse=True)
def light_settings(settings):
    """Static files under their plain names, and passwords that are quick to hash."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
