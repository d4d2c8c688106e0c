"""The server's settings, a layer as the test wants it, and an application that lets the test in (see `control`).

SCENARIO_LAYER           memory, pubsub or core
SCENARIO_CAPACITY        how many messages the memory layer or the core layer keeps for a channel
SCENARIO_GROUP_EXPIRY    after how many seconds a layer forgets members
SCENARIO_ACTS            modules with further commands, such as tests.scenarios.acts_slow
"""

import os

from qflare.settings import *  # noqa: F403 – settings are names in a module
from qflare.settings import CHANNEL_LAYERS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.scenarios.control.ControlConfig"]
ROOT_URLCONF = "tests.scenarios.urls"

# No scenario looks at a page, and to collect what pages fetch would take longer than all else at a start.
STATICFILES_FINDERS = []

_layer = CHANNEL_LAYERS["default"]
for _name in ("capacity", "group_expiry"):
    if _value := os.environ.get(f"SCENARIO_{_name.upper()}"):
        _layer["CONFIG"][_name] = int(_value)
CHANNEL_LAYERS = {"default": _layer}
