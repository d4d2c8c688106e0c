"""Use cases of updates: accept what keeps every rule, reject the rest with its reason, note what is late."""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import msgspec

from edge.identity import ALGORITHM, UPDATE_CONTEXT, BadSignature, verify
from edge.protocol import PROTOCOL
from edge.protocol.http import UpdateManifest, UpdateReceipt
from edge.protocol.server import ErrorNotification
from edge.wire import WireError, check_file, max_size, norm_in_file
from fl import events
from fl.devices import active_device, check_active
from fl.exceptions import Conflict, NotFound, UpdateRefused
from fl.files import ReceivedFile
from fl.lifecycle import ASSIGNMENT_MOVES, OPEN_ASSIGNMENTS, AssignmentState, RoundState
from fl.models import Assignment, Device, Round, Update
from fl.models.update import UpdateState
from fl.notifications import notify
from fl.payloads import updates_counted
from fl.prepared import Prepared, PreparedUpdate
from fl.rounds import end_assignment, lock_run, tell_run
from fl.tasks import spec_of_task

MAX_EXAMPLES = 2**40
MAX_SIZE = 2**62
MAX_METRIC = 1e100
"""Beyond it a metric says nothing, and means of many could overflow."""
MAX_MANIFEST_BYTES = 8 * 1024


@dataclass(frozen=True)
class _Sent:
    """What a device sent, less the file."""

    assignment: Assignment
    manifest: bytes
    signature: bytes
    now: datetime

    @property
    def device(self) -> Device:
        return self.assignment.device


# What an update is checked against, and no more: a round takes one update after another, and each reads this.
_COLUMNS = (
    *("round_id", "device_id", "cohort_index", "state", "reason", "progress", "loss"),
    *("device__name", "device__state", "device__public_key"),
    *("round__number", "round__run_id", "round__base_model_id"),
    *("round__run__task", "round__run__max_update_norm", "round__base_model__digest"),
)
_assignments = Prepared(
    lambda assignment, device: (
        Assignment.objects.filter(pk=assignment, device=device)
        .order_by()
        .select_related("device", "round__run", "round__base_model")
        .only(*_COLUMNS)
    )
)
# It changes nothing and locks the round: while we hold it, no coordinator can close it.
_hold_open = PreparedUpdate(lambda round: Round.objects.filter(pk=round, state=RoundState.TRAINING), "ended_at")
_cohort_states = Prepared(
    lambda round: (
        Assignment.objects.select_for_update().filter(round=round).order_by("cohort_index").values_list("state")
    )
)


def assignment_of(device_id: int, assignment_id: int) -> Assignment:
    """Return a device's assignment, open or not, as far as an update needs it.

    Raises:
        Unauthenticated, DeviceBarred: as `active_device`.
        NotFound: the device has none of this number.
    """
    assignment = _assignments.first(assignment=assignment_id, device=device_id)
    if assignment is None:
        active_device(device_id)
        raise NotFound(f"there is no assignment {assignment_id} of this device")
    check_active(assignment.device)
    return assignment


def size_limit(assignment: Assignment) -> int:
    """Return how many bytes an update for an assignment can have at most."""
    return max_size(spec_of_task(assignment.round.run.task))


def accept_update(
    *,
    assignment: Assignment,
    manifest: bytes,
    signature: bytes,
    file: ReceivedFile,
    now: datetime,
) -> UpdateReceipt:
    """Take in an update: check it, store it, count it; sending the same again answers the same.

    Args:
        assignment: as `assignment_of` returned it, before or after the file arrived.
        manifest: the exact bytes that were signed.
        file: what arrived; it is moved to its place when the update is accepted, and stays the caller's otherwise.

    Raises:
        Conflict: another update was sent for it.
        UpdateRefused: a rule is broken; the assignment is rejected with this reason.
    """
    sent = _Sent(assignment, manifest, signature, now)
    if assignment.state not in OPEN_ASSIGNMENTS:
        if (earlier := Update.objects.filter(assignment=assignment).first()) is not None:
            return _answer_again(sent, earlier)
        _check_awaits_update(assignment)
    try:
        content = _checked_manifest(sent)
        if assignment.state not in OPEN_ASSIGNMENTS:
            return _keep_late(sent, content)
        length = _checked_file(sent, content, file)
    except UpdateRefused as refusal:
        _reject(sent, refusal)
    return _store(sent, content, file, length)


def reject_update(
    *, assignment: Assignment, manifest: bytes, signature: bytes, refusal: UpdateRefused, now: datetime
) -> NoReturn:
    """Reject an update for a rule that it broke before its file was whole, such as its size; raises the refusal.

    Raises:
        UpdateRefused: always.
    """
    if Update.objects.filter(assignment=assignment).exists() or assignment.state not in OPEN_ASSIGNMENTS:
        raise refusal
    _reject(_Sent(assignment, manifest, signature, now), refusal)


def _check_awaits_update(assignment: Assignment) -> None:
    """Check that an update of this assignment would be counted, or be late."""
    if (
        assignment.state not in OPEN_ASSIGNMENTS
        and AssignmentState.LATE not in ASSIGNMENT_MOVES[AssignmentState(assignment.state)]
    ):
        raise Conflict(f"assignment {assignment.pk} is {assignment.state} already")


def _answer_again(sent: _Sent, earlier: Update) -> UpdateReceipt:
    if bytes(earlier.manifest) != sent.manifest[:MAX_MANIFEST_BYTES]:
        raise Conflict(
            f"another update was sent for assignment {sent.assignment.pk}: it is {earlier.state}",
            action="keep the first one",
        )
    if earlier.state == UpdateState.REJECTED:
        raise UpdateRefused(earlier.reason, code=earlier.code)
    return _receipt(sent.assignment.pk, earlier)


def _receipt(assignment_id: int, update: Update) -> UpdateReceipt:
    return UpdateReceipt(
        assignment_id=assignment_id, state=update.state, reason=update.reason, received_at=update.received_at
    )


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _checked_manifest(sent: _Sent) -> UpdateManifest:
    """Check the signature, then that the manifest speaks of this assignment."""
    if len(sent.manifest) > MAX_MANIFEST_BYTES:
        raise UpdateRefused(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes", code="bad_manifest")
    try:
        verify(bytes(sent.device.public_key), sent.signature, sent.manifest, UPDATE_CONTEXT)
    except BadSignature as error:
        raise UpdateRefused(
            "the manifest is not signed with this device's key",
            action="sign the exact bytes of the manifest",
            code="bad_signature",
        ) from error
    try:
        content = msgspec.json.decode(sent.manifest, type=UpdateManifest)
    except msgspec.DecodeError as error:
        raise UpdateRefused(f"the manifest cannot be read: {error}", code="bad_manifest") from error
    _check_subject(sent, content)
    if not 1 <= content.num_examples <= MAX_EXAMPLES:
        raise UpdateRefused(f"num_examples is {content.num_examples}; it must be at least 1", code="bad_num_examples")
    if not re.fullmatch("[0-9a-f]{64}", content.update_digest) or not 0 <= content.size <= MAX_SIZE:
        raise UpdateRefused("update_digest is no SHA-256, or size no number of bytes", code="bad_manifest")
    for name, value in content.metrics.items():
        _check_metric(name, value)
    return content


def _check_metric(name: str, value: float) -> None:
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise UpdateRefused("the name of a metric has 1 to 100 characters that can be shown", code="bad_metrics")
    if not abs(value) <= MAX_METRIC:
        raise UpdateRefused(
            f"the metric {name} is {value:g}; it says nothing beyond {MAX_METRIC:g}", code="bad_metrics"
        )


def _check_subject(sent: _Sent, content: UpdateManifest) -> None:
    round_ = sent.assignment.round
    expected: dict[str, object] = {
        "algorithm": ALGORITHM,
        "protocol": PROTOCOL,
        "device_id": sent.device.pk,
        "run_id": round_.run_id,
        "round": round_.number,
        "assignment_id": sent.assignment.pk,
        "base_digest": round_.base_model.digest,
    }
    for field, value in expected.items():
        if (said := getattr(content, field)) != value:
            raise UpdateRefused(f"the manifest says {field} {said}; it must be {value}", code="wrong_manifest")


def _checked_file(sent: _Sent, content: UpdateManifest, file: ReceivedFile) -> float:
    """Check what arrived against its manifest, the model and the run's limit; return the delta's L2 norm."""
    if file.size != content.size:
        raise UpdateRefused(f"{file.size} bytes arrived; the manifest says {content.size}", code="wrong_size")
    if file.digest != content.update_digest:
        raise UpdateRefused("the file's SHA-256 is not the one in the manifest", code="wrong_digest")
    run = sent.assignment.round.run
    spec = spec_of_task(run.task)
    try:
        # One pass over the values: the norm of what is not finite is not finite either.
        length = norm_in_file(file.path, spec)
        if not math.isfinite(length):
            check_file(file.path, spec)
    except WireError as error:
        raise UpdateRefused(str(error), code=error.code) from error
    if not math.isfinite(length):
        raise UpdateRefused("the update is too long to be measured: its L2 norm is infinite", code="not_finite")
    if run.max_update_norm is not None and length > run.max_update_norm:
        raise UpdateRefused(
            f"the update's L2 norm is {length:.4g}; this run takes at most {run.max_update_norm:g}",
            code="norm_too_large",
        )
    return length


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(sent: _Sent, content: UpdateManifest, file: ReceivedFile, length: float) -> UpdateReceipt:
    assignment = sent.assignment
    with events.transaction():
        states = _states_if_awaited(assignment)
        if states is not None:
            name = file.keep(f"updates/{assignment.round_id}/{assignment.pk}-{content.update_digest}.safetensors")
            update = _row(sent, content, UpdateState.ACCEPTED, norm=length, file=name)
            end_assignment(assignment, AssignmentState.ACCEPTED, reason="", now=sent.now, update=update)
            states[assignment.cohort_index] = AssignmentState.ACCEPTED
            # Until the last one is in, the round waits for the others or its deadline.
            if OPEN_ASSIGNMENTS.isdisjoint(states):
                events.wake_coordinators()
    if states is None:
        return _outrun(sent, content)
    # How many there are is a tick: to people the accepted assignment is told durably, and to all the round's close.
    counted = updates_counted(assignment.round, states)
    events.tick(f"updates:{assignment.round_id}", counted, stream=assignment.round.run.stream, now=sent.now)
    return _receipt(assignment.pk, update)


def _states_if_awaited(assignment: Assignment) -> list[str] | None:
    """Keep a round and its assignments as they are until the transaction ends; return the assignments' states.

    None: the round has closed, or the assignment has ended.
    """
    if not _hold_open({"ended_at": None}, round=assignment.round_id):
        return None
    states = [state for (state,) in _cohort_states.all(round=assignment.round_id)]
    return states if states[assignment.cohort_index] in OPEN_ASSIGNMENTS else None


def _outrun(sent: _Sent, content: UpdateManifest) -> UpdateReceipt:
    """Answer when the round closed, or the same update was stored, while this one was checked."""
    earlier = Update.objects.filter(assignment=sent.assignment).first()
    return _keep_late(sent, content) if earlier is None else _answer_again(sent, earlier)


def _keep_late(sent: _Sent, content: UpdateManifest) -> UpdateReceipt:
    assignment = sent.assignment
    with events.transaction():
        lock_run(assignment.round.run_id)
        if (earlier := Update.objects.filter(assignment=assignment).first()) is not None:
            return _answer_again(sent, earlier)
        assignment.refresh_from_db(fields=["state", "reason"])
        _check_awaits_update(assignment)
        reason = f"the round had closed: {assignment.reason}" if assignment.reason else "the round had closed"
        end_assignment(assignment, AssignmentState.LATE, reason=reason, now=sent.now)
        update = _row(sent, content, UpdateState.LATE, reason=reason)
    return _receipt(assignment.pk, update)


def _reject(sent: _Sent, refusal: UpdateRefused) -> NoReturn:
    assignment = sent.assignment
    with events.transaction():
        run = lock_run(assignment.round.run_id)
        if not Assignment.objects.filter(pk=assignment.pk, state__in=OPEN_ASSIGNMENTS).exists():
            raise refusal
        end_assignment(assignment, AssignmentState.REJECTED, reason=refusal.message, now=sent.now)
        _row(sent, None, UpdateState.REJECTED, code=refusal.reason_code, reason=refusal.message)
        notify(
            events.SYSTEM,
            ErrorNotification(
                code=refusal.reason_code,
                severity="warning",
                title=f"Update from {sent.device.name} rejected",
                detail=refusal.message,
                action=refusal.action or "Look at the device's log; suspend it if it goes on.",
                run_id=assignment.round.run_id,
                round=assignment.round.number,
                device_id=sent.device.pk,
            ),
            sent.now,
        )
        tell_run(run, sent.now)
        events.wake_coordinators()
    raise refusal


def _row(
    sent: _Sent,
    content: UpdateManifest | None,
    state: UpdateState,
    *,
    code: str = "",
    reason: str = "",
    norm: float | None = None,
    file: str = "",
) -> Update:
    return Update.objects.create(
        assignment=sent.assignment,
        state=state,
        code=code,
        reason=reason[:500],
        manifest=sent.manifest[:MAX_MANIFEST_BYTES],
        signature=sent.signature[:MAX_MANIFEST_BYTES],
        digest=content.update_digest if content else "",
        size=content.size if content else 0,
        num_examples=content.num_examples if content else 0,
        metrics=content.metrics if content else {},
        norm=norm,
        file=file,
        received_at=sent.now,
    )
