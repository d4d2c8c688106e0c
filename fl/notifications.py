"""Errors that people are told of: the first of its kind at once, equal ones within seconds as one, with their number.

A device that fails in a loop, or a program that reports the same again and again, must not drown what else is told. Nor
may anything be swallowed: what was not told by itself is told as a number when the seconds are over.
"""

import hashlib
from datetime import datetime, timedelta

import msgspec
from django.conf import settings

from edge.protocol.server import ErrorNotification, encode_payload
from fl import events
from fl.models import ErrorGroup


def notify(stream: str, error: ErrorNotification, now: datetime) -> None:
    """Record an error in the transaction that is open, or count it where an equal one was told just before.

    Equal are those of which everything but the round is the same.
    """
    said = encode_payload(error).decode()
    group, is_first = ErrorGroup.objects.select_for_update().get_or_create(
        key=_key(stream, error), defaults={"stream": stream, "data": said, "told_at": now}
    )
    if is_first:
        events.record(stream, error, now)
        return
    group.data, group.untold = said, group.untold + 1
    if group.told_at <= _over(now):
        _tell(group, now)
    group.save()


def tell_counted(*, now: datetime) -> None:
    """Tell of the errors that were only counted, where the seconds since one was told are over."""
    over = ErrorGroup.objects.filter(told_at__lte=_over(now))
    over.filter(untold=0).delete()
    for key in list(over.order_by("key").values_list("key", flat=True)):
        with events.transaction():
            # Another process may have told it meanwhile.
            group = over.select_for_update().filter(pk=key, untold__gt=0).first()
            if group is not None:
                _tell(group, now)
                group.save()


def _tell(group: ErrorGroup, now: datetime) -> None:
    """Record one event for all that were counted since the last; equal ones are counted again from here."""
    error = msgspec.json.decode(group.data, type=ErrorNotification)
    times = "once more" if group.untold == 1 else f"{group.untold} times more"
    since = max(1, round((now - group.told_at).total_seconds()))
    told = msgspec.structs.replace(error, count=group.untold, detail=f"{times} within {since} s. {error.detail}")
    events.record(group.stream, told, now)
    group.told_at, group.untold = now, 0


def _over(now: datetime) -> datetime:
    return now - timedelta(seconds=settings.QFLARE_EQUAL_ERRORS_SECONDS)


def _key(stream: str, error: ErrorNotification) -> str:
    same = encode_payload(msgspec.structs.replace(error, round=None))
    return hashlib.sha256(stream.encode() + b"\n" + same).hexdigest()
