"""QFLARE's settings, for its database and files, with nothing in front of the one view."""

from qflare.settings import *  # noqa: F403 - settings are made to be taken over as they are

ROOT_URLCONF = "transfers_parts.stock"
MIDDLEWARE = []
DATA_UPLOAD_MAX_MEMORY_SIZE = None
