"""Update: what a device sent for its assignment, with the manifest it signed."""

from django.db import models
from django.db.models import Q

from fl.models.assignment import Assignment


class UpdateState(models.TextChoices):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    LATE = "late"


class Update(models.Model):
    """One device's contribution to a round, or the record of why it is none; the manifest's exact bytes stay."""

    assignment = models.OneToOneField(Assignment, on_delete=models.CASCADE, related_name="update")
    state = models.CharField(max_length=12, choices=UpdateState.choices)
    code = models.CharField(max_length=40, blank=True, default="")
    """Why it was rejected, for programs."""
    reason = models.CharField(max_length=500, blank=True, default="")
    manifest = models.BinaryField()
    signature = models.BinaryField()
    digest = models.CharField(max_length=64)
    """SHA-256 of the file's bytes, as the manifest says."""
    size = models.PositiveBigIntegerField()
    num_examples = models.PositiveBigIntegerField()
    metrics = models.JSONField(default=dict, blank=True)
    norm = models.FloatField(null=True, blank=True)
    """L2 over all floating tensors."""
    file = models.CharField(max_length=200, blank=True, default="")
    """Name in storage; empty once the round is over, unless the run keeps updates, and for late and rejected ones."""
    received_at = models.DateTimeField()

    class Meta:
        ordering = ["assignment"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=UpdateState.values), name="update_state_is_known"),
            models.CheckConstraint(
                condition=~Q(state="accepted") | Q(num_examples__gte=1, norm__isnull=False),
                name="accepted_update_counts_examples",
            ),
            models.CheckConstraint(condition=Q(state="accepted") | Q(file=""), name="only_accepted_updates_keep_files"),
        ]

    def __str__(self) -> str:
        return f"update of {self.assignment_id}: {self.state}"
