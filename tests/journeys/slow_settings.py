"""The server's settings, and a strategy that takes as long as a test wants (see `slow`)."""

from qflare.settings import *  # noqa: F403 – settings are names in a module
from qflare.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.journeys.slow.SlowConfig"]
