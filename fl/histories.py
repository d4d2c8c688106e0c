"""Notices that an older copy of the database was put back, and then gives every stream another history.

A counter that stands lower than it once did will give numbers again that clients know for other events; resumed from,
two histories would become one without anybody noticing. So how far each stream was seen is kept outside the database:
by every server in memory, and in a small file beside the data and in Redis, where there is one, which servers write
every few seconds. Nothing is recorded by a process before it has compared them. A new epoch for every stream, since a
copy is put back whole, lets clients know that what they have is of another history, and they are sent what is true.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings
from django.db import transaction

from edge.protocol.server import Position
from fl import seen_in_redis
from fl.models import Stream
from fl.models.event import new_epoch

logger = logging.getLogger(__name__)

_has_looked = False


def fallen(seen: Mapping[str, Position], now: Mapping[str, Position]) -> dict[str, Position]:
    """Return the streams that stand lower than they were seen within the same history, and where they were seen."""
    return {
        name: position
        for name, position in seen.items()
        if name in now and now[name].epoch == position.epoch and now[name].seq < position.seq
    }


def look_once() -> None:
    """Look, unless this process has done so before; it costs no query where nothing was ever seen."""
    global _has_looked
    if not _has_looked:
        if _file().exists() or settings.REDIS_URL:
            look()
        _has_looked = True


def look() -> None:
    """Compare where the streams stand with where they were seen, renew them if need be, and write down what is seen.

    The streams of devices are left out: there may be very many, and what is in them is told to others as well.
    """
    # First: what is kept there was committed before, so that a lower head can only be that of an older copy.
    seen, elsewhere = _read(), seen_in_redis.read()
    heads = _heads()
    lower = fallen(seen, heads) | fallen(elsewhere or {}, heads)
    if lower:
        renew(lower)
        heads = _heads()
    if heads != seen:
        _write(heads)
    if elsewhere is not None and heads != elsewhere:
        seen_in_redis.write(heads, elsewhere)


def renew(seen: Mapping[str, Position]) -> bool:
    """Give every stream a new epoch, provided that those named still have the one they were seen with.

    Args:
        seen: streams that stand lower than they were seen, and where that was.
    """
    with transaction.atomic():
        # All of them, in the order in which transactions take them.
        heads = {row.name: row for row in Stream.objects.select_for_update().order_by("name")}
        if not any(name in heads and heads[name].epoch == position.epoch for name, position in seen.items()):
            return False  # another process has seen it too, and was faster
        for stream in heads.values():
            stream.epoch = new_epoch()
        Stream.objects.bulk_update(heads.values(), ["epoch"], batch_size=500)
    name, position = next(iter(seen.items()))
    logger.warning(
        "an older copy of the database was put back: %s stood at %d and stands at %d now. "
        "Every stream has a new epoch, and clients are sent what is true instead of what they missed.",
        name,
        position.seq,
        heads[name].head if name in heads else 0,
    )
    return True


def _heads() -> dict[str, Position]:
    rows = Stream.objects.exclude(name__startswith="device:").order_by("name")
    return {name: Position(epoch=epoch, seq=head) for name, epoch, head in rows.values_list("name", "epoch", "head")}


def _file() -> Path:
    return Path(settings.QFLARE_SEEN_HEADS)


def _read() -> dict[str, Position]:
    try:
        text = _file().read_text()
    except FileNotFoundError:
        return {}
    try:
        return {name: Position(epoch=epoch, seq=seq) for name, (epoch, seq) in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        # It is written anew at once; what it held is lost, and with it this one chance to notice.
        logger.error("%s cannot be read: an older copy of the database would not be noticed this time", _file())
        return {}


def _write(heads: Mapping[str, Position]) -> None:
    path = _file()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Not fsynced: it is written often, and after a power cut it may be a little behind.
        partial.write_text(json.dumps({name: [position.epoch, position.seq] for name, position in heads.items()}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
