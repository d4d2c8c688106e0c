"""What was noted in the audit log, as tests compare it."""

from fl.models import AuditEntry
from fl.models.audit import Act

OF_SIGNING_IN = [Act.PERSON_SIGN_IN, Act.PERSON_SIGN_IN_FAILED, Act.PERSON_SIGN_OUT]


def noted():
    """Return (act, person, subject, address, door) of all that was noted but signing in and out, oldest first."""
    return [_as_compared(entry) for entry in AuditEntry.objects.exclude(act__in=OF_SIGNING_IN).order_by("pk")]


def noted_of(act):
    """Return the same of one act."""
    return [_as_compared(entry) for entry in AuditEntry.objects.filter(act=act).order_by("pk")]


def _as_compared(entry):
    return entry.act, entry.person_name, entry.subject, entry.address, entry.door
