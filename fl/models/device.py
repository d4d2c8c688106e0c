"""Device: an enrolled participant; the token that let it in, the tasks it offers, the lease that says it is there."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from edge.identity import ALGORITHM
from fl.lifecycle import DeviceState
from fl.models.fields import choices_of, one_of


class Device(models.Model):
    """An enrolled participant, known by its public key."""

    name = models.CharField(max_length=100, unique=True)
    algorithm = models.CharField(max_length=20, default=ALGORITHM)
    public_key = models.BinaryField()
    fingerprint = models.CharField(max_length=64, unique=True)
    """SHA-256 of the raw public key."""
    state = models.CharField(max_length=12, choices=choices_of(DeviceState), default=DeviceState.PENDING)
    state_reason = models.CharField(max_length=500, blank=True, default="")
    protocol = models.CharField(max_length=20, blank=True, default="")
    edge_version = models.CharField(max_length=40, blank=True, default="")
    acked_seq = models.PositiveBigIntegerField(default=0)
    """How far the device has taken notice of its own stream."""
    tags = models.JSONField(default=list, blank=True)
    """Short words by which people find it again."""
    duplicated_at = models.DateTimeField(null=True, blank=True)
    """When two devices were last seen to use its key."""
    enrolled_at = models.DateTimeField()
    last_heard_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [one_of("state", DeviceState, "device_state_is_known")]

    def __str__(self) -> str:
        return self.name

    @property
    def stream(self) -> str:
        return f"device:{self.pk}"


class DeviceTask(models.Model):
    """A task that a device offered when it last connected."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="tasks")
    task = models.CharField(max_length=100)
    digest = models.CharField(max_length=64)
    num_examples = models.PositiveIntegerField()
    supports = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["task"]
        constraints = [models.UniqueConstraint(fields=["device", "task"], name="device_offers_a_task_once")]

    def __str__(self) -> str:
        return f"{self.device_id} {self.task}"


class PresenceLease(models.Model):
    """A device's connection, as long as it is believed to live; a row means online."""

    device = models.OneToOneField(Device, on_delete=models.CASCADE, related_name="lease")
    connection_id = models.CharField(max_length=40, unique=True)
    instance = models.CharField(max_length=60)
    """The server process that holds the socket."""
    connected_at = models.DateTimeField()
    lease_until = models.DateTimeField(db_index=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    """The socket closed; the device is announced offline when the lease runs out, and is not selected before."""
    replaced_since = models.DateTimeField(null=True, blank=True)
    """When the replacements that are counted began."""
    replacements = models.PositiveSmallIntegerField(default=0)
    """How often a connection was replaced by a newer one while it lived, within a minute."""
    is_duplicate = models.BooleanField(default=False)
    """This connection, and the one that it replaced, are to end: two devices use one identity."""

    def __str__(self) -> str:
        return f"{self.device_id} until {self.lease_until:%H:%M:%S}"


class EnrollmentToken(models.Model):
    """Lets one device in, once; only a hash of its secret is kept."""

    MAX_LIFETIME_HOURS = 24 * 90

    token_id = models.CharField(max_length=16, unique=True)
    secret_hash = models.CharField(max_length=64)
    label = models.CharField(max_length=100, blank=True, default="")
    auto_approve = models.BooleanField(default=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    device = models.OneToOneField(
        Device, on_delete=models.SET_NULL, null=True, blank=True, related_name="enrollment_token"
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(expires_at__gt=models.F("created_at")), name="token_expires_after_creation"
            ),
            models.CheckConstraint(
                condition=Q(device__isnull=True) | Q(used_at__isnull=False), name="token_with_device_is_used"
            ),
        ]

    def __str__(self) -> str:
        return self.label or self.token_id
