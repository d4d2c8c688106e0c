"""For other code: publish an event of each kind, and speak to everybody of some connection types.

Each `broadcast_<event>` may be called from synchronous code, where it returns when the event is recorded, and from
asynchronous code, where it returns an awaitable and does its work in a thread. Data is checked against the event's
struct in `edge.protocol.server`. Events of a run go to its stream, which devices and the public may follow: they name
no device. All others go to `system`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from edge.protocol import server
from fl import audit, events
from fl.audit import Subject
from fl.exceptions import Invalid, NotFound
from fl.models import Event, Run, Stream
from fl.models.audit import Act
from fl.notifications import notify
from fl.payloads import device_status, run_status
from fl.visibility import AUDIENCES, audience_stream

Data = Mapping[str, Any]
P = TypeVar("P", bound=server.Payload)

_under_way: set["asyncio.Future[None]"] = set()


def broadcast(
    *,
    message: str,
    audiences: Sequence[str],
    sender: User,
    now: datetime,
    level: Literal["info", "warning", "error"] = "info",
    expires_at: datetime | None = None,
) -> server.Broadcast:
    """Say something to everybody of some connection types; the log keeps it with its sender.

    Raises:
        Invalid: the message is empty or too long, or an audience is none.
    """
    if not 1 <= len(message.strip()) <= 2000:
        raise Invalid("a broadcast has 1 to 2,000 characters", field="message")
    unknown = sorted(set(audiences) - set(AUDIENCES))
    if unknown or not audiences:
        raise Invalid(
            f"unknown audiences: {', '.join(unknown)}" if unknown else "a broadcast needs an audience",
            field="audiences",
            action=f"choose from {', '.join(AUDIENCES)}",
        )
    chosen = sorted(set(audiences))
    payload = server.Broadcast(
        message=message, level=level, sender=sender.get_username(), audiences=chosen, expires_at=expires_at
    )
    with events.transaction():
        audit.note(
            Act.BROADCAST_SEND, Subject(f"to {', '.join(chosen)}"), by=sender, now=now, detail=f"{level}: {message}"
        )
        for audience in chosen:
            events.record(audience_stream(audience), payload, now)
    return payload


def broadcast_fl_status_update(status: Data, *, run_id: int) -> Awaitable[None] | None:
    """Publish the state of a run; fields that `status` lacks are the run's own."""

    def publish() -> None:
        run = _run(run_id)
        _record(run.stream, _merged(run_status(run), status))

    return _wherever(publish)


def broadcast_training_progress(round_number: int, progress: Data, *, run_id: int) -> Awaitable[None] | None:
    """Publish progress of a round: to its run, or to `system` where `progress` names a device."""

    def publish() -> None:
        run = _run(run_id)
        payload = _converted(
            server.TrainingProgress, {"phase": "training", **progress, "run_id": run.pk, "round": round_number}
        )
        names_a_device = payload.device_id or payload.device_name or payload.assignment_id
        _record(events.SYSTEM if names_a_device else run.stream, payload)

    return _wherever(publish)


def broadcast_model_aggregation(round_number: int, aggregation: Data, *, run_id: int) -> Awaitable[None] | None:
    """Publish a phase of an aggregation (`phase`: started, progress, completed, failed) to its run."""

    def publish() -> None:
        run = _run(run_id)
        own = {"task": run.task, "strategy": run.strategy, "phase": "progress"}
        _record(
            run.stream,
            _converted(server.ModelAggregation, {**own, **aggregation, "run_id": run.pk, "round": round_number}),
        )

    return _wherever(publish)


def broadcast_device_status(device_id: int, status: Data) -> Awaitable[None] | None:
    """Publish the state of a device to `system`; fields that `status` lacks are the device's own."""

    def publish() -> None:
        from fl.models import Device

        device = Device.objects.filter(pk=device_id).first()
        if device is None:
            raise NotFound(f"there is no device {device_id}")
        _record(events.SYSTEM, _merged(device_status(device), status))

    return _wherever(publish)


def broadcast_error_notification(code: str, notification: Data) -> Awaitable[None] | None:
    """Publish that something went wrong: `title` is needed; with `run_id` and no `device_id` it goes to the run."""

    def publish() -> None:
        payload = _converted(server.ErrorNotification, {**notification, "code": code})
        to_run = payload.run_id is not None and payload.device_id is None
        stream = _run(payload.run_id).stream if to_run and payload.run_id else events.SYSTEM
        with events.transaction():
            notify(stream, payload, timezone.now())

    return _wherever(publish)


def broadcast_recent_events(stream: str, *, limit: int = 50) -> Awaitable[None] | None:
    """Send the newest events of a stream again to all who follow it; receivers know them by their `seq`."""

    def publish() -> None:
        row = Stream.objects.filter(pk=stream).first()
        if row is None:
            raise NotFound(f"there is no stream {stream}")
        newest = list(Event.objects.filter(stream=row, seq__gt=row.head - limit, seq__lte=row.head).order_by("seq"))
        payload = server.RecentEvents(
            stream=stream,
            epoch=row.epoch,
            recovered=False,
            reason="fresh",
            events=[logged_event(event) for event in newest],
            since=newest[0].seq - 1 if newest else row.head,
            to=row.head,
        )
        events.tick(f"recent:{stream}", payload, stream=stream, now=timezone.now())

    return _wherever(publish)


def logged_event(event: Event) -> server.LoggedEvent:
    """Return a row of the log as `recent_events` carries it."""
    return server.LoggedEvent(
        seq=event.seq,
        event=event.event,
        data=msgspec.Raw(event.data.encode()),
        timestamp=server.format_timestamp(event.timestamp),
    )


def _wherever(publish: Callable[[], None]) -> Awaitable[None] | None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        publish()
        return None
    # A task, so that the event goes out even if nobody awaits it; the loop itself would let go of it.
    task = asyncio.ensure_future(sync_to_async(partial(_in_a_thread, publish), thread_sensitive=False)())
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return task


def _in_a_thread(publish: Callable[[], None]) -> None:
    try:
        publish()
    finally:
        connection.close()  # a pooled connection must not stay with a thread that idles


def _run(run_id: int) -> Run:
    run = Run.objects.filter(pk=run_id, deleted_at__isnull=True).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run


def _record(stream: str, payload: server.Payload) -> None:
    with events.transaction():
        events.record(stream, payload, timezone.now())


def _merged(own: P, changes: Data) -> P:
    return _converted(type(own), {**msgspec.structs.asdict(own), **changes})


def _converted(kind: type[P], data: Data) -> P:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{kind.event}: {error}") from error
