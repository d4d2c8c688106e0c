"""Tells a database that is away, or cannot take more just now, from a mistake: what met it may be tried again."""

import sqlite3
from typing import TypeGuard

from django.db import InterfaceError, OperationalError

RETRY_SECONDS = 5
"""When to try again what met such a database."""


def is_outage(error: BaseException | None) -> TypeGuard[OperationalError | InterfaceError]:
    """Say whether an error means that the database is away, is restarting, or is too busy."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    # SQLite calls by the same name what is wrong with a statement, such as a table that is not there.
    cause = error.__cause__
    return not (isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR)
