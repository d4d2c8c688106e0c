"""How rows become what the server says: one builder for each payload, used by events, snapshots and pages alike."""

from collections.abc import Sequence

from edge.protocol import server as wire
from fl.lifecycle import OPEN_ASSIGNMENTS, AssignmentState, RoundState, RunState, run_actions
from fl.models import Assignment, Device, GlobalModel, Round, Run, Update
from fl.seeds import training_seed
from fl.strategies import proximal_mu

_LOST = frozenset(
    {AssignmentState.REJECTED, AssignmentState.FAILED, AssignmentState.EXPIRED, AssignmentState.CANCELLED}
    | {AssignmentState.LATE}
)


WEIGHTS_PATH = "/api/v1/weights/{digest}/"


def weights_url(digest: str) -> str:
    """Return where the weights of a digest are to be had."""
    return WEIGHTS_PATH.format(digest=digest)


UPDATE_PATH = "/api/v1/assignments/{assignment_id}/update/"


def update_url(assignment_id: int) -> str:
    """Return where the update of an assignment goes."""
    return UPDATE_PATH.format(assignment_id=assignment_id)


def run_status(run: Run) -> wire.FlStatusUpdate:
    """Return the state of a run and of its newest round."""
    current = run.round_set.order_by("-number").first()
    states = list(current.assignments.values_list("state", flat=True).order_by()) if current else []
    newest = run.models.filter(published_at__isnull=False).order_by("-version").first()
    return run_status_from(run, current, states, newest)


def run_status_from(
    run: Run, current: Round | None, states: Sequence[str], newest: GlobalModel | None
) -> wire.FlStatusUpdate:
    """Return the state of a run from rows already read: its newest round, that one's assignments, its newest model."""
    open_round = current is not None and current.ended_at is None
    return wire.FlStatusUpdate(
        run_id=run.pk,
        run_name=run.name,
        task=run.task,
        strategy=run.strategy,
        state=run.state,
        reason=(current.reason if current and open_round and not run.reason else run.reason),
        rounds=run.rounds,
        round=current.number if current else None,
        round_state=current.state if current else None,
        cohort_size=run.cohort_size,
        quorum=run.quorum,
        selected=len(states),
        updates_received=states.count(AssignmentState.ACCEPTED),
        updates_lost=sum(state in _LOST for state in states),
        started_at=run.started_at,
        round_started_at=current.started_at if current else None,
        deadline_at=current.deadline_at if current and current.state == RoundState.TRAINING else None,
        model_version=newest.version if newest else None,
        best_version=run.best_model.version if run.best_model else None,
        actions=run_actions(RunState(run.state), RoundState(current.state) if current else None),
    )


def device_status(device: Device) -> wire.DeviceStatus:
    """Return a device's state, presence and activity."""
    assignment = Assignment.objects.filter(device=device, state__in=OPEN_ASSIGNMENTS).select_related("round").first()
    return device_status_from(device, assignment)


def device_status_from(device: Device, assignment: Assignment | None) -> wire.DeviceStatus:
    """Return a device's state, presence and activity from rows already read: its open assignment, lease and offers."""
    lease = getattr(device, "lease", None)
    offers = list(device.tasks.all())
    return wire.DeviceStatus(
        device_id=device.pk,
        name=device.name,
        state=device.state,
        presence="online" if lease else "offline",
        activity=assignment.state if assignment else "idle",
        reason=device.state_reason,
        last_heard_at=device.last_heard_at,
        edge_version=device.edge_version,
        tags=device.tags,
        tasks=[offer.task for offer in offers],
        num_examples={offer.task: offer.num_examples for offer in offers},
        run_id=assignment.round.run_id if assignment else None,
        round=assignment.round.number if assignment else None,
    )


def assignment_message(assignment: Assignment) -> wire.Assignment:
    """Return what a device is told to do."""
    round_ = assignment.round
    run, base = round_.run, round_.base_model
    if round_.deadline_at is None:
        raise ValueError(f"round {round_.pk} has an assignment and no deadline")
    return wire.Assignment(
        assignment_id=assignment.pk,
        run_id=run.pk,
        run_name=run.name,
        round=round_.number,
        task=run.task,
        task_digest=run.task_digest,
        base_version=base.version,
        base_digest=base.digest,
        weights_url=weights_url(base.digest),
        update_url=update_url(assignment.pk),
        training=wire.TrainingPlan(
            local_epochs=run.local_epochs,
            batch_size=run.batch_size,
            learning_rate=run.learning_rate,
            momentum=run.momentum,
            proximal_mu=proximal_mu(run.strategy, run.strategy_config),
            seed=training_seed(run.seed, round_.number, assignment.cohort_index),
        ),
        deadline_at=round_.deadline_at,
        max_update_norm=run.max_update_norm,
    )


def assignment_progress(assignment: Assignment, update: Update | None) -> wire.TrainingProgress:
    """Return how far one device's part of a round is; for the stream `system` alone, since it names the device.

    Args:
        update: what the device has sent, if it has.
    """
    return wire.TrainingProgress(
        run_id=assignment.round.run_id,
        round=assignment.round.number,
        phase=assignment.state,
        assignment_id=assignment.pk,
        device_id=assignment.device_id,
        device_name=assignment.device.name,
        progress=assignment.progress,
        loss=assignment.loss,
        metrics=update.metrics if update else {},
        num_examples=update.num_examples if update else None,
        reason=assignment.reason,
    )


def updates_counted(round_: Round, states: Sequence[str]) -> wire.TrainingProgress:
    """Return how many updates a round has received, from its assignments' states; it names no device."""
    received = states.count(AssignmentState.ACCEPTED)
    return wire.TrainingProgress(
        run_id=round_.run_id,
        round=round_.number,
        phase=RoundState.TRAINING,
        progress=received / len(states),
        updates_received=received,
    )


def deadline_extended(round_: Round, seconds: float, reason: str) -> wire.TrainingProgress:
    """Return by how many seconds the deadline of a round was extended; it names no device."""
    return wire.TrainingProgress(
        run_id=round_.run_id,
        round=round_.number,
        phase="deadline_extended",
        duration_seconds=seconds,
        reason=reason,
    )


def round_completed(round_: Round, model: GlobalModel, states: Sequence[str]) -> wire.TrainingProgress:
    """Return what a round has come to, its assignments' states among it; it names no device."""
    if round_.started_at is None or round_.ended_at is None:
        raise ValueError(f"round {round_.pk} has not ended")
    return wire.TrainingProgress(
        run_id=round_.run_id,
        round=round_.number,
        phase="round_completed",
        progress=1.0,
        metrics=model.metrics or {},
        device_metrics=spreads(round_.device_metrics),
        updates_received=states.count(AssignmentState.ACCEPTED),
        duration_seconds=(round_.ended_at - round_.started_at).total_seconds(),
    )


def model_completed(model: GlobalModel) -> wire.ModelAggregation:
    """Return the announcement of a published version, by which devices fetch it."""
    states = model.round.assignments.values_list("state", flat=True).order_by() if model.round else []
    return model_completed_from(model, list(states))


def model_completed_from(model: GlobalModel, states: Sequence[str]) -> wire.ModelAggregation:
    """Return the announcement of a published version from rows already read: those of its round's assignments."""
    round_, run = model.round, model.run
    return wire.ModelAggregation(
        run_id=run.pk,
        task=run.task,
        round=round_.number if round_ else 0,
        phase="completed",
        strategy=run.strategy,
        updates_received=states.count(AssignmentState.ACCEPTED),
        updates_planned=len(states),
        updates_rejected=states.count(AssignmentState.REJECTED),
        progress=1.0,
        version=model.version,
        digest=model.digest,
        task_digest=run.task_digest,
        size_bytes=model.size,
        weights_url=weights_url(model.digest),
        metrics=model.metrics,
        device_metrics=spreads(round_.device_metrics) if round_ else {},
        is_best=run.best_model_id == model.pk,
        duration_seconds=_seconds_to_aggregate(round_) if round_ else None,
    )


def spreads(stored: dict[str, dict[str, float | None]]) -> dict[str, wire.Spread]:
    """Return the spread of each metric as it is kept in Round.device_metrics."""
    return {name: wire.Spread(**spread) for name, spread in stored.items()}


def _seconds_to_aggregate(round_: Round) -> float | None:
    return (round_.ended_at - round_.closed_at).total_seconds() if round_.ended_at and round_.closed_at else None
