"""Sessions of people: Django's, in the database, but for keys that no session can have."""

from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore


class SessionStore(DatabaseSessionStore):
    """The store that pages, the API and sockets read sessions from; settings name this module."""

    def _validate_session_key(self, key: Any) -> bool:
        # Django asks for 8 letters of any kind, and makes keys of letters and digits. Anybody can send a NUL, which
        # PostgreSQL takes in no text, not even to look for.
        return bool(key) and len(key) >= 8 and key.isascii() and key.isalnum()
