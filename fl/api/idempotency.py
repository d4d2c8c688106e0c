"""Commands that are safe to send twice: an `Idempotency-Key` belongs to one request of one person for a day.

    once(request, command) -> Response
        for views: reads the header; without one, the command simply runs
    do_once(*, user, key, request_hash, now, command) -> Answer
        for other doors, such as a `cmd` on a socket
    request_hash(*parts) -> str
        over anything that JSON can hold, such as method, path and body

`command` takes nothing, calls one use case and returns an `Answer`. It runs in the transaction that keeps its answer,
so that both are there or neither is: an error is not kept, and the same request may be tried again under its key.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from fl import events
from fl.exceptions import IdempotencyConflict, Invalid
from fl.models import IdempotentRequest

KEY_HEADER = "Idempotency-Key"
REPEATED_HEADER = "Idempotent-Replayed"
KEPT_FOR = timedelta(days=1)
MAX_KEY_LENGTH = 100


@dataclass(frozen=True)
class Answer:
    """What a command answers.

    Attributes:
        status: of HTTP.
        data: the JSON object.
        kept: what a repetition is answered instead, where `data` holds a secret that must not be stored.
        repeated: this is the answer of an earlier request.
    """

    status: int
    data: Mapping[str, Any]
    kept: Mapping[str, Any] | None = None
    repeated: bool = False


def once(request: Request, command: Callable[[], Answer]) -> Response:
    """Run a person's command, or answer what it answered when it came under the same key before.

    Raises:
        IdempotencyConflict: the key came with another request.
        Invalid: the key is empty, too long, or has a NUL.
    """
    key = request.headers.get(KEY_HEADER)
    user = request.user
    if key is None or not isinstance(user, User):
        answer = command()
    else:
        hashed = request_hash(request.method, request.path, request.data)
        answer = do_once(user=user, key=key, request_hash=hashed, now=timezone.now(), command=command)
    headers = {REPEATED_HEADER: "true"} if answer.repeated else {}
    return Response(answer.data, status=answer.status, headers=headers)


def do_once(*, user: User, key: str, request_hash: str, now: datetime, command: Callable[[], Answer]) -> Answer:
    """Run `command` unless this person's request of this key was done within the last day; then return its answer.

    Two at once: the second waits for the first's commit and returns its answer.

    Args:
        request_hash: what makes two requests the same, as `request_hash` gives it.

    Raises:
        IdempotencyConflict: the key came with another request.
        Invalid: the key is empty, too long, or has a NUL.
    """
    if not 1 <= len(key) <= MAX_KEY_LENGTH or "\0" in key:
        raise Invalid(
            f"the {KEY_HEADER} has {len(key)} characters; 1 to {MAX_KEY_LENGTH} are allowed, and no NUL",
            field=KEY_HEADER,
        )
    with events.transaction():
        mine = IdempotentRequest.objects.filter(user=user)
        mine.filter(created_at__lte=now - KEPT_FOR).delete()
        # The row is the lock: it is there before the command runs, and goes with it when the command fails.
        row, is_new = mine.get_or_create(
            key=key,
            defaults={"user": user, "request_hash": request_hash, "status": 0, "answer": "", "created_at": now},
        )
        if not is_new:
            return _answer_of(row, request_hash)
        answer = command()
        kept = answer.data if answer.kept is None else answer.kept
        row.status, row.answer = answer.status, JSONRenderer().render(kept).decode()
        row.save(update_fields=["status", "answer"])
        return replace(answer, repeated=False)


def request_hash(*parts: Any) -> str:
    """Return the SHA-256 of values that JSON can hold; the order of an object's fields does not count."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _answer_of(row: IdempotentRequest, request_hash: str) -> Answer:
    if row.request_hash != request_hash:
        raise IdempotencyConflict(
            f"the {KEY_HEADER} {row.key!r} was used for another request", action="use a new key for each command"
        )
    return Answer(row.status, json.loads(row.answer), repeated=True)
