"""What a device must ask or tell its server over HTTP until it has an answer, whatever happens on the way."""

import random
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from edge.backoff import full_jitter
from edge.errors import ServerUnreachable, TokenExpired
from edge.jobs import Jobs
from edge.notes import Note, Tell


@dataclass(eq=False)
class Errand:
    """One thing to ask or tell.

    Attributes:
        name: the same for the same thing; while one is open, another of its name is not begun.
        attempt: does it, given a bearer token, and deals with the server's answer, a refusal included. It may raise
            ServerUnreachable or TokenExpired, and is then called again.
        is_wanted: asked before each attempt; the errand ends when it says no.
    """

    name: Hashable
    attempt: Callable[[str], None]
    is_wanted: Callable[[], bool] = field(default=lambda: True)
    failures: int = field(default=0, init=False)
    is_running: bool = field(default=False, init=False)


class Errands:
    """The open errands of one device.

    Without a bearer token they wait for the connection's next `welcome`. A server that does not answer is asked again
    with back-off, and at once when the connection comes back.
    """

    def __init__(self, jobs: Jobs, tell: Tell, on_token_expired: Callable[[], None]) -> None:
        self._jobs = jobs
        self._tell = tell
        self._on_token_expired = on_token_expired
        self._token: str | None = None
        self._open: dict[Hashable, Errand] = {}
        self._lock = threading.Lock()

    def begin(self, errand: Errand) -> None:
        """Start an errand on a network thread; nothing happens if it is already open."""
        with self._lock:
            self._open.setdefault(errand.name, errand)
        self._jobs.network(partial(self._go, errand))

    def token_renewed(self, token: str) -> None:
        """Use this bearer token from now on."""
        with self._lock:
            self._token = token

    def connected(self, token: str) -> None:
        """Use this bearer token from now on, and try all open errands again: the server is back."""
        with self._lock:
            self._token = token
            waiting = [errand for errand in self._open.values() if not errand.is_running]
        for errand in waiting:
            self._jobs.network(partial(self._go, errand))

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def _go(self, errand: Errand, failures: int | None = None) -> None:
        token = self._take(errand, failures)
        if token is None:
            return
        try:
            errand.attempt(token)
        except ServerUnreachable as error:
            self._retry(errand, error)
        except TokenExpired:
            self._renew(errand, token)
        except BaseException:
            self._close(errand)
            raise
        else:
            self._close(errand)

    def _take(self, errand: Errand, failures: int | None) -> str | None:
        """Mark an errand as running and return the token for it; None if it is not to run now.

        Args:
            failures: those there were when this attempt was put off; if there are more, it was tried in between.
        """
        with self._lock:
            if self._open.get(errand.name) is not errand or errand.is_running:
                return None
            if failures is not None and failures != errand.failures:
                return None
            if not errand.is_wanted():
                del self._open[errand.name]
                return None
            errand.is_running = self._token is not None
            return self._token

    def _retry(self, errand: Errand, error: ServerUnreachable) -> None:
        delay = full_jitter(errand.failures, random.random())
        with self._lock:
            errand.failures += 1
            errand.is_running = False
            failures = errand.failures
        self._tell(Note("problem", f"{error}; trying again in {delay:.1f} s.", "warning", {"retry_seconds": delay}))
        self._jobs.later(delay, partial(self._go, errand, failures))

    def _renew(self, errand: Errand, token: str) -> None:
        with self._lock:
            errand.is_running = False
            has_newer = self._token not in (token, None)
            if not has_newer:
                self._token = None
        if has_newer:
            self._go(errand)
        else:
            self._on_token_expired()

    def _close(self, errand: Errand) -> None:
        with self._lock:
            errand.is_running = False
            if self._open.get(errand.name) is errand:
                del self._open[errand.name]
