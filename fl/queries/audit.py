"""The audit log, as its page, its exports and the API read it: newest first, filtered alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet

from fl.models import AuditEntry
from fl.snapshots import consistent_read

NAMES = 200
"""How many people are proposed to filter by."""
EXPORTED_AT_ONCE = 1000


@dataclass(frozen=True)
class Wanted:
    """Which entries; what is empty does not matter."""

    person: str = ""
    """The whole name."""
    act: str = ""
    subject: str = ""
    """A part of it, in upper or lower case."""
    since: datetime | None = None
    until: datetime | None = None
    """Before this moment."""


@dataclass(frozen=True)
class AuditPage:
    """A page of entries."""

    entries: list[AuditEntry]
    total: int
    people: list[str]
    """The names of people there are."""


def entries_for(wanted: Wanted) -> QuerySet[AuditEntry]:
    """Return what is wanted, in the reverse of the order in which it was noted."""
    found = AuditEntry.objects.order_by("-pk")
    if wanted.person:
        found = found.filter(person_name=wanted.person)
    if wanted.act:
        found = found.filter(act=wanted.act)
    if wanted.subject:
        found = found.filter(subject__icontains=wanted.subject)
    if wanted.since:
        found = found.filter(at__gte=wanted.since)
    if wanted.until:
        found = found.filter(at__lt=wanted.until)
    return found


def audit_page(wanted: Wanted, *, offset: int = 0, limit: int = 50) -> AuditPage:
    """Read a page of what is wanted, newest first."""
    with consistent_read():
        found = entries_for(wanted)
        return AuditPage(
            entries=list(found[offset : offset + limit]),
            total=found.count(),
            people=list(User.objects.order_by("username").values_list("username", flat=True)[:NAMES]),
        )


def exported(wanted: Wanted) -> Iterator[Mapping[str, Any]]:
    """Yield all that is wanted, newest first, as it is exported; what is noted meanwhile is not among it.

    It is read in pieces, each for itself: whoever takes it slowly keeps no transaction open, and no connection.
    """
    rest = entries_for(wanted)
    while piece := list(rest[:EXPORTED_AT_ONCE]):
        yield from map(row_of, piece)
        rest = entries_for(wanted).filter(pk__lt=piece[-1].pk)


COLUMNS = ("id", "at", "person", "act", "subject", "subject_kind", "subject_id", "detail", "address", "door")


def row_of(entry: AuditEntry) -> Mapping[str, Any]:
    """Return an entry as it is exported, by `COLUMNS`."""
    return {
        "id": entry.pk,
        "at": entry.at.isoformat(),
        "person": entry.person_name,
        "act": entry.act,
        "subject": entry.subject,
        "subject_kind": entry.subject_kind,
        "subject_id": entry.subject_id,
        "detail": entry.detail,
        "address": entry.address,
        "door": entry.door,
    }
