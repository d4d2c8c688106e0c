"""What `fl` tells becomes messages to groups: each event is encoded once and sent to every group with possible viewers.

Beside events: a barred or replaced device's connection is told to end, and people whose rights changed are looked at.
"""

import asyncio
from functools import partial
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.db.transaction import on_commit
from django.http import HttpRequest

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import TrainingProgress, encode_frame, encode_payload
from fl import signals
from fl.events import SYSTEM
from fl.signals import AtWork, Recorded, Ticked
from realtime import messages
from realtime.authentication import session_digest
from realtime.close_codes import DUPLICATE_IDENTITY
from realtime.gathering import GATHER_SECONDS, Gathering
from realtime.groups import Kind, device_group, groups_of, user_group
from realtime.messages import Ending
from realtime.pacing import Pacer
from realtime.publishing import call_on_loop, loop_of_process, publish


def connect() -> None:
    """Listen to what `fl` tells, and to what Django tells of people."""
    signals.event_recorded.connect(_tell_event)
    signals.ticked.connect(_tell_tick)
    signals.device_at_work.connect(_tell_work)
    signals.device_barred.connect(_end_barred)
    signals.device_replaced.connect(_end_replaced)
    signals.device_duplicated.connect(_end_duplicates)
    signals.person_changed.connect(_recheck_person)
    user_logged_out.connect(_end_session)
    post_save.connect(_recheck_user, sender=User)
    post_delete.connect(_recheck_user, sender=User)
    m2m_changed.connect(_recheck_members, sender=User.groups.through)
    post_save.connect(_recheck_group, sender=Group)
    pre_delete.connect(_recheck_group, sender=Group)


def _tell_event(recorded: Recorded, **_: Any) -> None:
    frame = encode_frame(
        recorded.event,
        recorded.data.encode(),
        timestamp=recorded.timestamp,
        stream=recorded.stream,
        seq=recorded.seq,
        epoch=recorded.epoch,
    )
    groups = groups_of(recorded.stream, public=recorded.public)
    publish([(group, messages.event_message(group, recorded, frame)) for group in groups])


def _send_tick(tick: Ticked, number: int) -> None:
    _publish_tick(tick, tick.key, tick.data.encode(), number)


def _send_work(tick: Ticked, number: int) -> None:
    for key, payload in _gathering.frames(tick.key):
        _publish_tick(tick, key, encode_payload(payload), number)


def _publish_tick(tick: Ticked, key: str, data: bytes, number: int) -> None:
    frame = encode_frame(tick.event, data, timestamp=tick.timestamp, key=key, number=number)
    # Whether a run is public is not known here; the hub knows, and asks each connection. Devices hear what is durable.
    groups = [group for group in groups_of(tick.stream, public=True) if group != Kind.CLIENTS]
    publish([(group, messages.tick_message(group, tick.stream, key, number, frame)) for group in groups])


_pacer = Pacer(_send_tick)
_gathering = Gathering()
_round_pacer = Pacer(_send_work, gather_seconds=GATHER_SECONDS)


def _tell_tick(tick: Ticked, **_: Any) -> None:
    if not call_on_loop(lambda: _pacer.offer(tick, loop_of_process())):
        _pacer.offer(tick, None)


def _tell_work(work: AtWork, **_: Any) -> None:
    if not call_on_loop(lambda: _gather(work, loop_of_process())):
        _gather(work, None)


def _gather(work: AtWork, loop: asyncio.AbstractEventLoop | None) -> None:
    # The pacer says when the round's turn comes; what is told then is read where it is gathered.
    turn = Ticked(
        key=_gathering.add(work), stream=SYSTEM, event=TrainingProgress.event, data="", timestamp=work.timestamp
    )
    _round_pacer.offer(turn, loop)


def _end_barred(device_id: int, reason: str, **_: Any) -> None:
    group = device_group(device_id)
    publish([(group, messages.close_message(group, Ending(CloseCode.DEVICE_BARRED, reason)))])


def _end_replaced(device_id: int, connection_id: str, **_: Any) -> None:
    group = device_group(device_id)
    publish([(group, messages.close_message(group, Ending(CloseCode.REPLACED, "", connection_id=connection_id)))])


def _end_duplicates(device_id: int, **_: Any) -> None:
    group = device_group(device_id)
    publish([(group, messages.close_message(group, Ending(CloseCode.TOO_MANY, DUPLICATE_IDENTITY)))])


def _end_session(request: HttpRequest | None, user: User | None, **_: Any) -> None:
    if user is None or user.pk is None:
        return
    group = user_group(user.pk)
    key = request.session.session_key if request is not None else None
    if key is None:
        publish([(group, messages.recheck_message(group))])
        return
    # The session is still there while this signal is sent, so looking again would find it in order.
    ending = Ending(CloseCode.EXPIRED, "signed out", session=session_digest(key))
    publish([(group, messages.close_message(group, ending))])


def _recheck_person(user_id: int, **_: Any) -> None:
    group = user_group(user_id)
    publish([(group, messages.recheck_message(group))])


def _recheck_user(instance: User, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    # Signing in writes `last_login` alone, which changes nobody's rights.
    if update_fields != frozenset({"last_login"}):
        on_commit(partial(_recheck_person, instance.pk), robust=True)


def _recheck_members(instance: User | Group, action: str, pk_set: set[int] | None, **_: Any) -> None:
    if isinstance(instance, User):
        if action.startswith("post_"):
            _recheck_user(instance)
    elif action == "pre_clear":
        _recheck_group(instance)
    elif action.startswith("post_"):
        for user_id in pk_set or ():
            on_commit(partial(_recheck_person, user_id), robust=True)


def _recheck_group(instance: Group, **_: Any) -> None:
    # Before it is emptied or deleted, which both commit later: afterwards nobody knows who was in it.
    for user_id in list(instance.user_set.values_list("pk", flat=True)):
        on_commit(partial(_recheck_person, user_id), robust=True)
