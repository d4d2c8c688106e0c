"""Who did what, when and from where: noted in the transaction that does it, so that what is not noted is not done.

    audit.note(Act.RUN_PAUSE, Subject.of(run), by=person, now=now)

Use cases know who acts, and on what. By which door that person came, and from which address, they do not, nor have they
any use for it. So it is not handed through each of them: the doors set it for as long as they call (`coming_by`), in a
context variable, and `note` looks there. The middleware does it for requests, the admins' socket for its commands.
Where no door has, somebody acts on the server itself.

What nobody does, as a coordinator's moves and what is swept, is no act, and is not noted.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Count, Model, Q

from fl.events import NotInTransaction
from fl.models import AuditEntry
from fl.models.audit import Act, Door

logger = logging.getLogger(__name__)

FAILURES_WITHIN = timedelta(hours=1)
MAX_FAILURES_OF_AN_ADDRESS, MAX_FAILURES = 100, 1000
"""How many sign-ins that failed are noted within that time. Anybody can try, and must not be able to fill the disk."""
LAST_FAILURE = "further ones within the hour are only in the server's log"


@dataclass(frozen=True)
class Origin:
    """Where a person acts from; the address is empty where it is not known."""

    door: Door
    address: str = ""


THE_SERVER_ITSELF = Origin(Door.COMMAND)
_origin: ContextVar[Origin] = ContextVar("origin", default=THE_SERVER_ITSELF)


@contextmanager
def coming_by(door: Door, address: str) -> Iterator[None]:
    """Let all that is noted within be noted as done by this door and from this address."""
    token = _origin.set(Origin(door, address))
    try:
        yield
    finally:
        _origin.reset(token)


@dataclass(frozen=True)
class Subject:
    """What something was done to: a short text for people; kind and id, where it is a row, for programs."""

    text: str
    kind: str = ""
    id: str = ""

    @classmethod
    def of(cls, row: Model) -> "Subject":
        """Return a row as a subject."""
        return cls(str(row), kind=str(row._meta.model_name), id=str(row.pk))


def note(act: Act, subject: Subject, *, by: User | None, now: datetime, detail: str = "") -> None:
    """Note what a person does, in the transaction that does it; nothing where nobody does it.

    Args:
        detail: what else there is to say, without secrets.

    Raises:
        NotInTransaction: there is none.
    """
    if by is not None:
        _add(act, subject, by=by, now=now, detail=detail)


def note_failed_sign_in(name: str, *, now: datetime, detail: str = "") -> None:
    """Note that somebody tried to sign in and failed; nobody knows who it was, only the name that was tried.

    Raises:
        NotInTransaction: no transaction is open.
    """
    address = _origin.get().address or None
    failures = AuditEntry.objects.filter(act=Act.PERSON_SIGN_IN_FAILED, at__gt=now - FAILURES_WITHIN)
    counts = failures.aggregate(of_all=Count("pk"), of_address=Count("pk", filter=_from(address)))
    left = min(MAX_FAILURES - counts["of_all"], MAX_FAILURES_OF_AN_ADDRESS - counts["of_address"])
    if left <= 0:
        logger.warning("somebody at %s failed to sign in; too many did for each to be noted", address or "no address")
        return
    said = [part for part in (detail, LAST_FAILURE if left == 1 else "") if part]
    _add(Act.PERSON_SIGN_IN_FAILED, Subject(name, kind="user"), by=None, now=now, detail="; ".join(said))


def prune(*, now: datetime) -> int:
    """Delete entries older than QFLARE_AUDIT_DAYS, where that is not 0; return how many."""
    if not settings.QFLARE_AUDIT_DAYS:
        return 0
    return AuditEntry.objects.forget_before(now - timedelta(days=settings.QFLARE_AUDIT_DAYS))


def _from(address: str | None) -> Q:
    return Q(address__isnull=True) if address is None else Q(address=address)


def _add(act: Act, subject: Subject, *, by: User | None, now: datetime, detail: str) -> None:
    if not connection.in_atomic_block:
        raise NotInTransaction(f"{act} was noted outside a transaction: it could be noted and not done, or the reverse")
    origin = _origin.get()
    AuditEntry.objects.create(
        at=now,
        person=by,
        person_name=by.get_username() if by else "",
        act=act,
        subject=_one_line(subject.text, 200),
        subject_kind=subject.kind[:40],
        subject_id=subject.id[:64],
        detail=detail.replace("\0", ""),
        address=origin.address or None,
        door=origin.door,
    )


def _one_line(text: str, length: int) -> str:
    # A name that was tried is anybody's word: what cannot be shown, or stored at all, as a NUL, is left out.
    return "".join(letter for letter in text if letter.isprintable())[:length]
