"""The server's settings, and an application and a storage that kill it at a given moment (see `crash`)."""

from qflare.settings import *  # noqa: F403 – settings are names in a module
from qflare.settings import INSTALLED_APPS, STORAGES

INSTALLED_APPS = [*INSTALLED_APPS, "tests.journeys.crash.CrashConfig"]
STORAGES = {**STORAGES, "default": {"BACKEND": "tests.journeys.crash.CrashingStorage"}}
