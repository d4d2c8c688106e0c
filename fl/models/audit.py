"""What people did: who, what, when and from where; written once, never changed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models.base import ModelBase
from django.utils.translation import gettext_lazy as _


class Act(models.TextChoices):
    """What a person can do that is noted."""

    RUN_CREATE = "run.create", _("Created a run")
    RUN_START = "run.start", _("Started a run")
    RUN_PAUSE = "run.pause", _("Paused a run")
    RUN_RESUME = "run.resume", _("Resumed a run")
    RUN_EXTEND_DEADLINE = "run.extend_deadline", _("Extended a round's deadline")
    RUN_STOP = "run.stop", _("Stopped a run")
    RUN_DESCRIBE = "run.describe", _("Renamed, tagged or noted a run")
    RUN_PROTECT = "run.protect", _("Protected a run")
    RUN_UNPROTECT = "run.unprotect", _("Ended the protection of a run")
    RUN_TRASH = "run.trash", _("Moved a run to the trash")
    RUN_RESTORE = "run.restore", _("Restored a run from the trash")
    TOKEN_ISSUE = "token.issue", _("Issued an enrolment token")
    TOKEN_WITHDRAW = "token.withdraw", _("Withdrew an enrolment token")
    DEVICE_DESCRIBE = "device.describe", _("Renamed or tagged a device")
    DEVICE_APPROVE = "device.approve", _("Approved a device")
    DEVICE_SUSPEND = "device.suspend", _("Suspended a device")
    DEVICE_REINSTATE = "device.reinstate", _("Reinstated a device")
    DEVICE_REVOKE = "device.revoke", _("Revoked a device")
    TEST_EVENT_SEND = "test_event.send", _("Sent a test event")
    BROADCAST_SEND = "broadcast.send", _("Sent a broadcast")
    PERSON_SIGN_IN = "person.sign_in", _("Signed in")
    PERSON_SIGN_IN_FAILED = "person.sign_in_failed", _("Failed to sign in")
    PERSON_SIGN_OUT = "person.sign_out", _("Signed out")
    ADMIN_ADD = "admin.add", _("Added by hand")
    ADMIN_CHANGE = "admin.change", _("Changed by hand")
    ADMIN_DELETE = "admin.delete", _("Deleted by hand")


class Door(models.TextChoices):
    """Which way a person came in to do it."""

    PAGE = "page", _("a page")
    REST = "rest", _("the REST API")
    ADMIN = "admin", _("Django's admin")
    SOCKET = "socket", _("the admins' socket")
    COMMAND = "command", _("a command on the server")


def acts() -> list[tuple[str, str]]:
    """Return the choices of what is noted; as a function, so that another act needs no migration."""
    return [(act.value, str(act.label)) for act in Act]


class Unchangeable(RuntimeError):
    """Somebody tried to change or delete what was noted."""

    def __init__(self) -> None:
        super().__init__("entries of the audit log are never changed, and go only when they are past their time")


class AuditEntries(models.QuerySet["AuditEntry"]):
    """Entries to read and to add to."""

    def update(self, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            Unchangeable: always.
        """
        raise Unchangeable

    def delete(self) -> NoReturn:
        """Refuse.

        Raises:
            Unchangeable: always.
        """
        raise Unchangeable

    def forget_before(self, moment: datetime) -> int:
        """Delete what is older, which is the one way for an entry to go; return how many there were."""
        return models.QuerySet.delete(self.filter(at__lt=moment))[0]


class AuditEntry(models.Model):
    """One act of one person. Only that its person is no more may still happen to it; the name stays."""

    at = models.DateTimeField(db_index=True)
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    person_name = models.CharField(max_length=150, blank=True, default="", db_index=True)
    """As the person was called then; empty where nobody was signed in."""
    act = models.CharField(max_length=40, choices=acts)
    subject = models.CharField(max_length=200, blank=True, default="")
    """What it was done to, short: "r-0042 demo", a device's name; of a sign-in that failed, the name that was tried."""
    subject_kind = models.CharField(max_length=40, blank=True, default="")
    """Such as run, device, enrollmenttoken, user: the model's name."""
    subject_id = models.CharField(max_length=64, blank=True, default="")
    detail = models.TextField(blank=True, default="")
    address = models.GenericIPAddressField(null=True, blank=True)
    door = models.CharField(max_length=12, choices=Door.choices)

    objects = AuditEntries.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.person_name or 'nobody'} {self.act} {self.subject}".rstrip()

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Add it.

        Raises:
            Unchangeable: it is there already.
        """
        if force_update or update_fields is not None or not self._state.adding:
            raise Unchangeable
        super().save(force_insert=force_insert or True, using=using)

    def delete(self, using: Any | None = None, keep_parents: bool = False) -> NoReturn:
        """Refuse.

        Raises:
            Unchangeable: always.
        """
        raise Unchangeable
