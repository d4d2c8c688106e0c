"""A broadcast as an admin asks for it, the same from REST, from the Django admin and from `/ws/admin`."""

import logging
from datetime import datetime
from typing import Any, Literal

import msgspec
from django.contrib.auth.models import User

from fl.broadcasts import broadcast

logger = logging.getLogger(__name__)


class BroadcastRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to say, and to which types of connections."""

    message: str
    audiences: list[str]
    level: Literal["info", "warning", "error"] = "info"
    expires_at: datetime | None = None


def send(request: BroadcastRequest, *, sender: User, now: datetime) -> dict[str, Any]:
    """Record a broadcast, log who sent it, and return it as it was sent.

    Raises:
        Invalid: the message is empty or too long, or an audience is none.
    """
    payload = broadcast(
        message=request.message,
        audiences=request.audiences,
        level=request.level,
        expires_at=request.expires_at,
        sender=sender,
        now=now,
    )
    logger.info("%s broadcast to %s: %r", payload.sender, ", ".join(payload.audiences), payload.message)
    answer: dict[str, Any] = msgspec.to_builtins(payload)
    return answer
