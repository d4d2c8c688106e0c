"""What goes on all the while: runs, one after another, and broadcasts, each by a server that is there."""

import itertools
import random
import threading
from collections import Counter

import httpx
import psycopg

PAUSE_SECONDS = 5.0
LOOK_SECONDS = 0.5
BROADCAST_SECONDS = 4.0
RUN_SECONDS = 300.0
"""In so long a short run ends, whatever restarts meanwhile."""
PLAN = {"task": "linear", "rounds": 3, "cohort_size": 3, "quorum": 3, "cohort_wait_seconds": 120.0}
ENDED = ("completed", "failed", "stopped")
AWAY = (httpx.HTTPError, psycopg.OperationalError)


class Work:
    """Threads that let things happen; what is refused while a part is away is tried again."""

    def __init__(self, house, *, watch, seed):
        self.counts = Counter()
        self.runs = []
        """Runs that were started."""
        self._house = house
        self._watch = watch
        self._chance = random.Random(f"work {seed}")
        self._no_more = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=work.__name__, daemon=True)
            for work in (self._run_and_run, self._broadcast)
        ]
        for thread in self._threads:
            thread.start()

    def leave(self):
        """Begin nothing more, and wait until the last run has ended."""
        self._no_more.set()
        for thread in self._threads:
            thread.join(RUN_SECONDS + 60)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def _guard(self, work):
        try:
            work()
        except Exception as error:
            self._watch.fault(f"{work.__name__} broke: {type(error).__name__}: {error}")
            raise

    def _run_and_run(self):
        for number in itertools.count(1):
            run = self._begun(number)
            if run is None:
                return
            self.runs.append(run)
            until = self._watch.now + RUN_SECONDS
            while (state := self._state(run)) not in ENDED:
                if self._watch.now > until:
                    self._watch.fault(f"run {run} is {state} after {RUN_SECONDS:g} s")
                    return
                threading.Event().wait(LOOK_SECONDS)
            if state != "completed":
                self._watch.fault(f"run {run} {state}: {self._house.run(run)['reason']}")
            self.counts["runs"] += 1
            if self._no_more.wait(PAUSE_SECONDS):
                return

    def _begun(self, number):
        """Make a run and start it; None if there is to be no more."""
        run = None
        while not self._no_more.is_set():
            try:
                if run is None:
                    run = self._server().post("/api/v1/runs/", PLAN | {"name": f"soak {number}", "seed": number})["id"]
                if self._house.run(run)["state"] == "pending":
                    self._server().post(f"/api/v1/runs/{run}/start/")
                return run
            except AWAY:
                self._no_more.wait(LOOK_SECONDS)
            except AssertionError as error:
                # The house wants success. What is answered while a part comes and goes is 503; all else is a fault.
                if not self._watch.excuses("postgres") or " 503 " not in str(error):
                    raise
                self._no_more.wait(LOOK_SECONDS)
        return run

    def _state(self, run):
        try:
            return self._house.run(run)["state"]
        except psycopg.OperationalError:
            return None

    def _broadcast(self):
        for number in itertools.count(1):
            try:
                self._server().say(f"broadcast {number}")
                self.counts["broadcasts"] += 1
            except AWAY:
                self.counts["broadcasts while a part was away"] += 1
            except AssertionError as error:
                if not self._watch.excuses("postgres") or " 503 " not in str(error):
                    raise
            if self._no_more.wait(BROADCAST_SECONDS):
                return

    def _server(self):
        return self._house.at(self._chance.choice(self._house.living() or ["anna"]))
