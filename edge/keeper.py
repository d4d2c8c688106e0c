"""How a device keeps the newest model of each run, and runs its owner's command after each."""

import math
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

from edge.errands import Errand, Errands
from edge.errors import Refused, TaskUnusable
from edge.http import Doors
from edge.jobs import Jobs
from edge.models import ModelShelf, WeightsCache
from edge.notes import Fact, Note, Tell
from edge.offers import Offer
from edge.protocol.server import ModelAggregation
from edge.wire import max_size

KEEP_SECONDS = 0.5
_STDERR = 2


class ModelKeeper:
    """Keeps what `model_aggregation` announces; a version that is overtaken before it is here is passed over.

    A run whose versions follow each other faster than KEEP_SECONDS has one kept in each, and the newest in the end.

    Args:
        command: words of the command to run after each new model; empty for none. Of the models that come while it
            runs, the newest of each run is next.
    """

    def __init__(
        self,
        *,
        shelf: ModelShelf,
        cache: WeightsCache,
        doors: Doors,
        errands: Errands,
        jobs: Jobs,
        offers: Mapping[str, Offer],
        tell: Tell,
        command: Sequence[str] = (),
    ) -> None:
        self._shelf = shelf
        self._cache = cache
        self._doors = doors
        self._errands = errands
        self._jobs = jobs
        self._offers = offers
        self._tell = tell
        self._newest: dict[int, ModelAggregation] = {}
        self._lock = threading.Lock()
        self._next_at: dict[int, float] = {}
        """When a run's next model may be kept; infinite while one waits for that."""
        self._command = _ModelCommand(command, tell) if command else None

    def hear(self, model: ModelAggregation) -> None:
        """Take notice of a published model; those of tasks that this device does not know are not for it."""
        offer = self._offers.get(model.task)
        if offer is None or not model.digest or model.task_digest not in ("", offer.known.digest):
            return
        with self._lock:
            self._newest[model.run_id] = model
            now = time.monotonic()
            wait = self._next_at.get(model.run_id, now) - now
            if wait <= 0:
                self._next_at[model.run_id] = now + KEEP_SECONDS
            else:
                self._next_at[model.run_id] = math.inf
        if wait <= 0:
            self._begin(model, model.digest, offer)
        elif wait < math.inf:
            self._jobs.later(wait, partial(self._begin_newest, model.run_id))

    def _begin_newest(self, run_id: int) -> None:
        with self._lock:
            self._next_at[run_id] = time.monotonic() + KEEP_SECONDS
            model = self._newest[run_id]
        if model.digest:
            self._begin(model, model.digest, self._offers[model.task])

    def _begin(self, model: ModelAggregation, digest: str, offer: Offer) -> None:
        self._errands.begin(
            Errand(
                name=("model", model.run_id, digest),
                attempt=partial(self._keep, model, digest, offer),
                # Each snapshot announces the model anew.
                is_wanted=lambda: self._newest[model.run_id].digest == digest,
            )
        )

    def stop(self) -> None:
        """Run no more commands, and end the one that runs."""
        if self._command is not None:
            self._command.stop()

    def _keep(self, model: ModelAggregation, digest: str, offer: Offer, token: str) -> None:
        kept = self._shelf.kept(model.run_id)
        if kept is not None and kept.digest == digest:
            return
        url = model.weights_url or f"/api/v1/weights/{digest}/"
        spec = offer.known.spec
        version = model.version or 0
        facts: dict[str, Fact] = {"run": model.run_id, "task": model.task, "version": version, "digest": digest}
        try:
            self._cache.obtain(digest, spec, lambda path: self._doors.download(url, token, path, max_size(spec)))
            path = self._shelf.keep(self._cache, run_id=model.run_id, task=model.task, version=version, digest=digest)
        except (TaskUnusable, Refused, OSError) as error:
            text = f"Version {version} of run {model.run_id} is not kept: {error}."
            self._tell(Note("problem", text, "warning", facts))
            return
        self._tell(Note("model", f"Version {version} of run {model.run_id} is in {path}.", facts=facts))
        if self._command is not None:
            self._command.run_after(model.run_id, {"PATH": str(path), **_environment(model, digest)})


def _environment(model: ModelAggregation, digest: str) -> dict[str, str]:
    return {"VERSION": str(model.version), "RUN": str(model.run_id), "TASK": model.task, "DIGEST": digest}


class _ModelCommand:
    """Runs a command, one at a time, in a thread that lives while there is something to run."""

    def __init__(self, command: Sequence[str], tell: Tell) -> None:
        self._command = list(command)
        self._tell = tell
        self._due: dict[int, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run_after(self, run_id: int, values: dict[str, str]) -> None:
        with self._lock:
            if self._stopped:
                return
            self._due[run_id] = values
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="edge-on-model", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            process, thread = self._process, self._thread
            if process is not None:
                process.terminate()
        if thread is not None:
            thread.join(timeout=5)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._due or self._stopped:
                    self._thread = None
                    return
                values = self._due.pop(next(iter(self._due)))
            problem = self._run(values)
            if problem and not self._stopped:
                text = f"The command for new models failed: {problem}."
                self._tell(Note("command", text, "warning", {"run": int(values["RUN"]), "command": self._command[0]}))

    def _run(self, values: dict[str, str]) -> str:
        """Run it once; return what went wrong, or nothing."""
        environment = {**os.environ, **{f"QFLARE_MODEL_{name}": value for name, value in values.items()}}
        with self._lock:
            if self._stopped:
                return ""
            try:
                # Its output goes where people read: our standard output is for programs.
                self._process = subprocess.Popen(
                    self._command, env=environment, stdin=subprocess.DEVNULL, stdout=_STDERR, stderr=_STDERR
                )
            except OSError as error:
                return str(error)
        status = self._process.wait()
        self._process = None
        return f"it ended with {status}" if status else ""
