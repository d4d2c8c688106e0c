"""To try whether events arrive: one that says nothing else."""

from datetime import datetime

from django.contrib.auth.models import User

from edge.protocol.server import ErrorNotification
from fl import audit, events
from fl.audit import Subject
from fl.models.audit import Act


def send_test_event(*, sender: User, now: datetime) -> ErrorNotification:
    """Record an event that tells people who sent it, and return it.

    It is not counted together with equal ones: each is looked for by whoever has sent it.
    """
    payload = ErrorNotification(
        code="test_event",
        severity="info",
        title=f"Test event from {sender.get_username()}",
        detail="Sent on purpose, to see that events arrive.",
    )
    with events.transaction():
        audit.note(Act.TEST_EVENT_SEND, Subject("the stream system"), by=sender, now=now)
        events.record(events.SYSTEM, payload, now)
    return payload
