"""The thread that drives all runs: woken at once when something happens, and by a clock for deadlines.

Any number may run, in any number of processes; the database decides who does what.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import F, FilteredRelation, Q, QuerySet
from django.utils import timezone

from edge.protocol.server import ErrorNotification
from edge.training import set_torch_threads
from fl import events, signals, sweeping
from fl.coordination import Clock, SteadyClock, advance, advance_run
from fl.devices import cancel_for_barred, expire_leases, shorten_leases
from fl.lifecycle import RunState
from fl.models import Run
from fl.notifications import notify, tell_counted
from fl.outages import is_outage
from fl.prepared import Prepared

logger = logging.getLogger(__name__)

JUMP = 1 / 4
"""By which part of a lease the system's clock may be off before that counts as a jump. A lease has as much left when it
is renewed in time: a device is heard at least twice in one (`fl.checks`), and it is renewed every quarter of one."""


class Coordinator(threading.Thread):
    """Calls `advance` for every open round whenever it is woken, and at least once a clock."""

    def __init__(self) -> None:
        super().__init__(name="coordinator", daemon=True)
        self._woken = threading.Event()
        self._stopping = threading.Event()
        # By a clock that never steps: one that stepped back an hour would keep us from looking for an hour.
        self._sweep_at = self._expire_at = time.monotonic()
        self._database_was_away = False
        self._ahead = _ahead_of_own_clock(timezone.now())
        self._told: set[str] = set()
        self._seen: set[str] = set()

    def wake(self, *_: Any, **__: Any) -> None:
        """Look for work now."""
        self._woken.set()

    def stop(self) -> None:
        """End after the step that is being done, of an aggregation after the update; join to wait for it."""
        self._stopping.set()
        self._woken.set()

    def run(self) -> None:
        set_torch_threads(settings.QFLARE_TORCH_THREADS)
        signals.work_available.connect(self.wake)
        self.wake()  # what an earlier process left undone does not wait for the clock
        try:
            while not self._stopping.is_set():
                self._woken.wait(timeout=settings.QFLARE_CLOCK_SECONDS)
                self._woken.clear()
                self._work()
        finally:
            signals.work_available.disconnect(self.wake)
            connection.close()

    def _work(self) -> None:
        close_old_connections()
        self._seen = set()
        try:
            self._expire_leases()
            while drive(self._stopping, self._tell):
                self._woken.clear()  # whatever woke us meanwhile, not least what we did ourselves, is looked at next
            self._sweep(timezone.now())
        except Exception as error:
            # The database may be away, or a bug has shown: it is told once, and the clock tries again.
            self._tell(error)
        # What went wrong in this turn too is not told again in the next.
        self._told &= self._seen

    def _expire_leases(self) -> None:
        # By the clock alone: what wakes us is not a lease that ran out.
        if time.monotonic() < self._expire_at:
            return
        now = timezone.now()
        jump = _ahead_of_own_clock(now) - self._ahead
        if self._database_was_away:
            # No process could renew a lease meanwhile: each gets the whole time for it, from the first answer on.
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            self._database_was_away = False
            self._let_all_renew("the database is back")
        elif abs(jump) > JUMP * settings.QFLARE_LEASE_SECONDS:
            # What the leases say is by the clock as it was; each is renewed by the clock as it is, or is nobody's.
            shorten_leases(now=now)
            self._ahead += jump
            self._let_all_renew(f"the system's clock has jumped by {jump:+.3g} s")
        else:
            expire_leases(now=now)
            cancel_for_barred(now=now)
            tell_counted(now=now)
            self._expire_at = time.monotonic() + settings.QFLARE_CLOCK_SECONDS

    def _let_all_renew(self, why: str) -> None:
        logger.warning("%s; no lease expires for %g s", why, settings.QFLARE_LEASE_SECONDS)
        self._expire_at = time.monotonic() + settings.QFLARE_LEASE_SECONDS

    def _sweep(self, now: datetime) -> None:
        if time.monotonic() >= self._sweep_at:
            sweeping.sweep(now=now)
            self._sweep_at = time.monotonic() + settings.QFLARE_SWEEP_SECONDS

    def _tell(self, error: Exception) -> None:
        if is_outage(error) and not _is_connected():
            if not self._database_was_away:
                logger.error("the database is away, and the coordinator waits for it: %s", error)
            self._database_was_away = True
            self._expire_at = time.monotonic()
            return
        text = f"{type(error).__name__}: {error}"
        self._seen.add(text)
        if text in self._told:
            return
        logger.error("the coordinator could not finish its turn; it tries again", exc_info=error)
        try:
            with events.transaction():
                notify(
                    events.SYSTEM,
                    ErrorNotification(
                        code="coordinator_error",
                        title="The coordinator could not finish its turn",
                        detail=text,
                        action="See the server's log. It tries again by itself.",
                    ),
                    timezone.now(),
                )
            self._told.add(text)
        except Exception:
            logger.exception("the error could not be recorded either")


def _ahead_of_own_clock(now: datetime) -> float:
    """Return by how many seconds the system's clock is ahead of the process's own, which never steps."""
    return now.timestamp() - time.monotonic()


def _is_connected() -> bool:
    """Say whether this thread's connection to the database still works: a statement may fail for reasons of its own."""
    return connection.connection is not None and connection.is_usable()


def _open_runs() -> QuerySet[Run, tuple[int, int | None]]:
    """Return the runs that go on, with the rounds that are open, least recently served first."""
    open_round = FilteredRelation("round_set", condition=Q(round_set__ended_at__isnull=True))
    runs = Run.objects.annotate(open_round=open_round).filter(
        Q(state=RunState.RUNNING) | Q(state=RunState.PAUSED, open_round__isnull=False)
    )
    return runs.order_by(F("last_served_at").asc(nulls_first=True), "pk").values_list("pk", "open_round")


_open = Prepared(_open_runs)


def drive(stopping: threading.Event, tell: Callable[[Exception], None]) -> bool:
    """Advance every run and round that is open, least recently served first; say whether anything was done.

    What one of them raises goes to `tell`, and the others go on.
    """

    def attempt(step: Callable[[int, Clock], bool], pk: int) -> bool:
        try:
            return not stopping.is_set() and step(pk, SteadyClock())
        except Exception as error:
            # One run that is broken, by a task that is gone or a file that is lost, must not hold up the others.
            tell(error)
            return False

    done = False
    drive_run, drive_round = (partial(step, is_stopping=stopping.is_set) for step in (advance_run, advance))
    for run_id, round_id in _open.all():
        done |= attempt(drive_run, run_id) if round_id is None else attempt(drive_round, round_id)
    return done
