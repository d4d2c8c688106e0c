"""What Django tells of people, for the audit log: signing in and out, and what is changed by hand in its admin."""

from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import timezone, translation

from fl import audit
from fl.audit import Subject
from fl.models.audit import Act
from fl.roles import role_of

BY_HAND = {ADDITION: Act.ADMIN_ADD, CHANGE: Act.ADMIN_CHANGE, DELETION: Act.ADMIN_DELETE}


def connect() -> None:
    """Listen to what Django tells."""
    user_logged_in.connect(_note_sign_in)
    user_login_failed.connect(_note_failed_sign_in)
    user_logged_out.connect(_note_sign_out)
    post_save.connect(_note_change_by_hand, sender=LogEntry)


def _note_sign_in(user: User, **_: Any) -> None:
    with transaction.atomic():
        audit.note(Act.PERSON_SIGN_IN, Subject.of(user), by=user, now=timezone.now())


def _note_failed_sign_in(credentials: dict[str, Any], **_: Any) -> None:
    # Of what was tried, the name alone.
    name = str(credentials.get("username") or "")
    with transaction.atomic():
        audit.note_failed_sign_in(name, now=timezone.now(), detail="" if name else "with a sign-in code")


def _note_sign_out(user: User | None, **_: Any) -> None:
    if user is None:  # whose session had ended before
        return
    with transaction.atomic():
        audit.note(Act.PERSON_SIGN_OUT, Subject.of(user), by=user, now=timezone.now())


def _note_change_by_hand(instance: LogEntry, created: bool, **_: Any) -> None:
    table = instance.content_type
    if not created or table is None or table.app_label == "fl":
        return  # the tables of `fl` are changed by use cases alone, and these note it themselves
    with transaction.atomic():
        audit.note(
            BY_HAND[instance.action_flag],
            Subject(instance.object_repr, kind=table.model, id=str(instance.object_id)),
            by=instance.user,
            now=instance.action_time,
            detail=_what_was_changed(instance),
        )


def _what_was_changed(entry: LogEntry) -> str:
    """Name the fields that were changed, never their values; of a person, the role it comes to."""
    # As everybody will read it, not as the one who changed it would.
    with translation.override("en"):
        said = [entry.get_change_message()] if entry.action_flag == CHANGE else []
    changed = entry.get_edited_object() if entry.action_flag != DELETION else None
    if isinstance(changed, User):
        said.append(f"Role: {role_of(changed).name.lower()}.")
    return " ".join(said)
