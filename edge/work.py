"""What a device does with what it hears: fetch, train, send, give up, keep models; one object a device.

All of it survives losing the connection: training goes on, a finished update stays on the disk until it is answered,
and the snapshot of the next connection says what still counts.
"""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, assert_never

import msgspec

from edge.errands import Errand, Errands
from edge.errors import Refused, TaskUnusable
from edge.http import Doors
from edge.identity import ALGORITHM, SigningKey
from edge.jobs import Jobs
from edge.keeper import ModelKeeper
from edge.models import ModelShelf, WeightsCache
from edge.notes import Fact, Level, Note, Tell
from edge.offers import Offer
from edge.protocol import PROTOCOL, client
from edge.protocol.http import UpdateManifest
from edge.protocol.server import Assignment
from edge.session import (
    Assigned,
    Cancelled,
    Greeting,
    Heard,
    ModelPublished,
    Noticed,
    Reconciled,
    TokenRenewed,
    Welcomed,
)
from edge.store import Account, Home, PendingUpdate
from edge.tasks import InvalidSettings, Progress, TrainingSettings
from edge.training import TrainingCancelled, TrainingError, TrainingResult, train
from edge.weights import Weights
from edge.wire import encode, max_size

PROGRESS_SECONDS = 0.5
"""At most two progress messages a second."""

FORBIDDEN = 403


class Link(Protocol):
    """A device's connection, as its work sees it; neither method blocks."""

    def send_progress(self, message: client.Progress) -> None:
        """Send this when possible; a newer one replaces it until then."""

    def reconnect(self, reason: str) -> None:
        """Close the connection and open another."""


@dataclass(frozen=True, eq=False)
class Equipment:
    """What the devices of one process share.

    Attributes:
        jobs: threads to work on.
        doors: connections to the server.
        cache: weights by digest.
    """

    jobs: Jobs
    doors: Doors
    cache: WeightsCache

    def close(self, seconds: float) -> None:
        """Begin nothing more, and wait a while for what was begun."""
        # Connections are not pulled from under a thread that still waits on one; they end with the process.
        if self.jobs.close(seconds):
            self.doors.close()


@dataclass(eq=False)
class _Training:
    """An assignment that is being worked on, until its update is on the disk."""

    assignment: Assignment
    offer: Offer
    cancelled: threading.Event = field(default_factory=threading.Event)


class DeviceWork:
    """One device's work; `handle` may be called from any thread and returns at once.

    Args:
        home: the device's folder, whose unsent updates are sent first.
        offers: what it can train, by the task's name.
        keep_model, command: see `DeviceSettings`.
    """

    def __init__(
        self,
        *,
        home: Home,
        account: Account,
        key: SigningKey,
        offers: Mapping[str, Offer],
        equipment: Equipment,
        link: Link,
        tell: Tell,
        keep_model: bool = True,
        command: tuple[str, ...] = (),
    ) -> None:
        self._home = home
        self._account = account
        self._key = key
        self._offers = offers
        self._jobs = equipment.jobs
        self._doors = equipment.doors
        self._cache = equipment.cache
        self._link = link
        self._tell = tell
        self._errands = Errands(self._jobs, tell, lambda: link.reconnect("the bearer token has expired"))
        self._keeper: ModelKeeper | None = None
        if keep_model:
            self._keeper = ModelKeeper(
                shelf=ModelShelf(home.models),
                cache=self._cache,
                doors=self._doors,
                errands=self._errands,
                jobs=self._jobs,
                offers=offers,
                tell=tell,
                command=command,
            )
        self._lock = threading.Lock()
        self._stopped = False
        self._training: _Training | None = None
        self._pending = {update.assignment_id: update for update in home.pending_updates()}
        self._given_up: set[int] = set()
        self._answered: set[int] = set()
        self._next_progress_at = 0.0

    def handle(self, heard: Heard) -> None:
        """Act on something the server said."""
        match heard:
            case Greeting():
                self._forget_answered()
            case Welcomed():
                self._enter(heard)
            case TokenRenewed():
                self._errands.token_renewed(heard.token)
            case Reconciled():
                self._reconcile(heard.assignment)
            case Assigned():
                self._begin(heard.assignment)
            case Cancelled():
                self._cancel(heard.assignment_id, heard.reason)
            case ModelPublished():
                if self._keeper is not None:
                    self._keeper.hear(heard.model)
            case Noticed():
                self._tell(Note("notice", heard.text, heard.level))
            case _:
                assert_never(heard)

    def stop(self) -> None:
        """Begin nothing more and stop training within one batch; the assignment stays open, to be trained again."""
        with self._lock:
            self._stopped = True
            training, self._training = self._training, None
        if training is not None:
            training.cancelled.set()
        if self._keeper is not None:
            self._keeper.stop()

    # What was heard.

    def _forget_answered(self) -> None:
        with self._lock:
            # The snapshot that is read from here on knows of every answer that came before.
            self._answered.clear()

    def _enter(self, welcomed: Welcomed) -> None:
        with self._lock:
            pending = list(self._pending.values())
        self._errands.connected(welcomed.token)
        for update in pending:
            self._errands.begin(self._upload_errand(update))

    def _reconcile(self, assignment: Assignment | None) -> None:
        training = self._training
        if training is not None:
            held = training.assignment.assignment_id
            if assignment is None or assignment.assignment_id != held:
                self._cancel(held, "the server no longer waits for it")
        if assignment is not None:
            self._begin(assignment)

    def _cancel(self, assignment_id: int, reason: str) -> None:
        with self._lock:
            training = self._training
            if training is None or training.assignment.assignment_id != assignment_id:
                return
            self._training = None
        training.cancelled.set()
        self._tell(self._note("cancelled", training.assignment, f"is cancelled: {reason}", "warning"))

    def _begin(self, assignment: Assignment) -> None:
        number = assignment.assignment_id
        offer = self._offers.get(assignment.task)
        replaced: _Training | None = None
        training: _Training | None = None
        with self._lock:
            current = self._training
            is_known = number in self._answered or number in self._given_up or number in self._pending
            if self._stopped or is_known or (current and current.assignment.assignment_id == number):
                return
            if offer is not None and offer.known.digest == assignment.task_digest:
                replaced, training = current, _Training(assignment, offer)
                self._training = training
        if training is None:
            why = "has other weights" if offer else "is not offered"
            self._give_up(assignment, f"the task {assignment.task!r} {why} on this device")
            return
        if replaced is not None:
            replaced.cancelled.set()
        self._tell(self._note("assignment", assignment, f"begins: {assignment.task}"))
        self._fetch_or_train(training)

    # An assignment's way: fetch, train, keep, send.

    def _fetch_or_train(self, training: _Training) -> None:
        assignment = training.assignment
        weights = self._cache.held(assignment.base_digest)
        if weights is not None:
            self._jobs.train(partial(self._train, training, weights))
            return
        self._errands.begin(
            Errand(
                name=("weights", assignment.assignment_id),
                attempt=partial(self._fetch, training),
                is_wanted=lambda: not training.cancelled.is_set(),
            )
        )

    def _fetch(self, training: _Training, token: str) -> None:
        assignment, spec = training.assignment, training.offer.known.spec
        try:
            weights = self._cache.obtain(
                assignment.base_digest,
                spec,
                lambda path: self._doors.download(assignment.weights_url, token, path, max_size(spec)),
            )
        except (Refused, TaskUnusable, OSError) as error:
            self._give_up(assignment, str(error))
            return
        self._jobs.train(partial(self._train, training, weights))

    def _train(self, training: _Training, weights: Weights) -> None:
        assignment, offer = training.assignment, training.offer
        started = time.monotonic()
        try:
            result = train(
                offer.known.task,
                offer.examples,
                weights,
                TrainingSettings(**msgspec.structs.asdict(assignment.training)),
                partial(self._on_progress, assignment),
                training.cancelled.is_set,
            )
        except TrainingCancelled:
            return
        except (TrainingError, InvalidSettings) as error:
            self._give_up(assignment, str(error))
        except Exception as error:
            # The task may be anyone's code: whatever it raises ends this assignment, and the server hears why.
            self._give_up(assignment, f"the task {assignment.task!r} failed: {type(error).__name__}: {error}")
        else:
            seconds = time.monotonic() - started
            self._tell(self._note("trained", assignment, f"is trained in {seconds:.2f} s", seconds=seconds))
            self._finish(training, result)

    def _on_progress(self, assignment: Assignment, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next_progress_at:
            return
        self._next_progress_at = now + PROGRESS_SECONDS
        self._link.send_progress(
            client.Progress(
                assignment_id=assignment.assignment_id,
                state="training",
                progress=progress.fraction,
                local_epoch=progress.local_epoch,
                local_epochs=progress.local_epochs,
                loss=progress.loss,
            )
        )

    def _finish(self, training: _Training, result: TrainingResult) -> None:
        assignment = training.assignment
        if training.cancelled.is_set():
            return
        try:
            update = self._keep_update(assignment, result)
        except OSError as error:
            self._give_up(assignment, f"the update could not be stored on the device: {error}")
            return
        with self._lock:
            self._pending[assignment.assignment_id] = update
            if self._training is training:
                self._training = None
        self._send_uploading(assignment)
        self._errands.begin(self._upload_errand(update))

    def _keep_update(self, assignment: Assignment, result: TrainingResult) -> PendingUpdate:
        delta = encode(result.delta)
        manifest = UpdateManifest(
            algorithm=ALGORITHM,
            protocol=PROTOCOL,
            device_id=self._account.device_id,
            run_id=assignment.run_id,
            round=assignment.round,
            assignment_id=assignment.assignment_id,
            base_digest=assignment.base_digest,
            update_digest=hashlib.sha256(delta).hexdigest(),
            size=len(delta),
            num_examples=result.num_examples,
            metrics=result.metrics,
        )
        return self._home.keep_update(url=assignment.update_url, manifest=manifest, delta=delta, key=self._key)

    def _send_uploading(self, assignment: Assignment) -> None:
        now = time.monotonic()
        if now < self._next_progress_at:
            return
        self._next_progress_at = now + PROGRESS_SECONDS
        epochs = assignment.training.local_epochs
        self._link.send_progress(
            client.Progress(
                assignment_id=assignment.assignment_id,
                state="uploading",
                progress=1.0,
                local_epoch=epochs,
                local_epochs=epochs,
            )
        )

    def _upload_errand(self, update: PendingUpdate) -> Errand:
        return Errand(
            name=("update", update.assignment_id),
            attempt=partial(self._upload, update),
            is_wanted=lambda: update.assignment_id in self._pending,
        )

    def _upload(self, update: PendingUpdate, token: str) -> None:
        manifest = update.manifest
        where = f"Round {manifest.round} of run {manifest.run_id}"
        try:
            receipt = self._doors.upload(update, token)
            state, reason = receipt.state, receipt.reason
        except Refused as error:
            state, reason = "rejected", error.why
            if error.status == FORBIDDEN:
                # The device, not the update, is refused: it keeps what it has until it is let in again.
                self._tell(Note("problem", f"{where}: the update waits: {reason}.", "warning"))
                return
        except OSError as error:
            state, reason = "lost", f"its file cannot be read: {error}"
        with self._lock:
            self._pending.pop(update.assignment_id, None)
            self._answered.add(update.assignment_id)
        self._home.forget_update(update)
        text = f"{where}: the update is {state}" + (f": {reason}." if reason else ".")
        facts: dict[str, Fact] = {"assignment": update.assignment_id, "state": state, "reason": reason}
        facts |= {"run": manifest.run_id, "round": manifest.round}
        self._tell(Note("update", text, "info" if state == "accepted" else "warning", facts))

    # Giving up.

    def _give_up(self, assignment: Assignment, reason: str) -> None:
        with self._lock:
            if self._training is not None and self._training.assignment is assignment:
                self._training = None
            self._given_up.add(assignment.assignment_id)
        self._tell(self._note("failure", assignment, f"is given up: {reason}", "error", reason=reason))
        self._errands.begin(
            Errand(
                name=("failure", assignment.assignment_id),
                attempt=partial(self._report_failure, assignment, reason),
            )
        )

    def _report_failure(self, assignment: Assignment, reason: str, token: str) -> None:
        try:
            self._doors.report_failure(assignment.assignment_id, reason, token)
        except Refused as error:
            text = f"does not take its failure: {error.why}"
            self._tell(self._note("problem", assignment, text, "warning"))
        with self._lock:
            self._given_up.discard(assignment.assignment_id)
            self._answered.add(assignment.assignment_id)

    def _note(self, kind: str, assignment: Assignment, text: str, level: Level = "info", **facts: Fact) -> Note:
        where = f"Round {assignment.round} of run {assignment.run_name!r} {text}."
        facts |= {"assignment": assignment.assignment_id, "run": assignment.run_id, "round": assignment.round}
        return Note(kind, where, level, facts)
