"""What must be right before the server starts: combinations that cannot work are named, with the setting to change."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import connection


@register()
def heartbeat_fits_the_lease(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """A lease must outlast two heartbeats, or devices go offline between them."""
    if settings.QFLARE_LEASE_SECONDS >= 2 * settings.QFLARE_HEARTBEAT_SECONDS:
        return []
    return [
        Error(
            f"QFLARE_LEASE_SECONDS={settings.QFLARE_LEASE_SECONDS:g} is shorter than two heartbeats "
            f"of {settings.QFLARE_HEARTBEAT_SECONDS:g} s: devices would go offline between them.",
            hint="Raise QFLARE_LEASE_SECONDS or lower QFLARE_HEARTBEAT_SECONDS.",
            id="fl.E001",
        )
    ]


@register()
def sqlite_returns_what_it_updates(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The event log's counters are taken by UPDATE … RETURNING, which SQLite has since 3.35 (2021)."""
    if connection.vendor != "sqlite" or sqlite3.sqlite_version_info >= (3, 35):
        return []
    return [
        Error(
            f"SQLite {sqlite3.sqlite_version} is too old: the event log needs 3.35 or newer.",
            hint="Use a newer Python or system, or PostgreSQL by DATABASE_URL.",
            id="fl.E002",
        )
    ]
