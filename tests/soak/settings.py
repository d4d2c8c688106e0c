"""The server's settings as they are, and an application that lets the soak see what is left in a server."""

from qflare.settings import *  # noqa: F403 – settings are names in a module
from qflare.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.scenarios.control.ControlConfig"]
