"""Assignment: one device's part of a round."""

from django.db import models
from django.db.models import Q

from fl.lifecycle import OPEN_ASSIGNMENTS, AssignmentState
from fl.models.device import Device
from fl.models.fields import choices_of, one_of
from fl.models.round import Round


class Assignment(models.Model):
    """What a device has to do in a round, how far it is, and how it ended."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="assignments")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="assignments")
    cohort_index = models.PositiveIntegerField()
    """Place in the cohort: seeds and the order of summation come from it, never from arrival."""
    state = models.CharField(max_length=12, choices=choices_of(AssignmentState), default=AssignmentState.ASSIGNED)
    reason = models.CharField(max_length=500, blank=True, default="")
    progress = models.FloatField(default=0.0)
    """Share of the batches done, in [0, 1]; written at most every few seconds a device."""
    progress_at = models.DateTimeField(null=True, blank=True)
    loss = models.FloatField(null=True, blank=True)
    assigned_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["round", "cohort_index"]
        constraints = [
            one_of("state", AssignmentState, "assignment_state_is_known"),
            models.UniqueConstraint(fields=["round", "device"], name="device_is_once_in_a_round"),
            models.UniqueConstraint(fields=["round", "cohort_index"], name="cohort_index_is_unique"),
            models.UniqueConstraint(
                fields=["device"],
                condition=Q(state__in=sorted(OPEN_ASSIGNMENTS)),
                name="device_has_one_open_assignment",
            ),
            models.CheckConstraint(
                condition=Q(progress__gte=0, progress__lte=1), name="assignment_progress_is_a_share"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.round_id}/{self.cohort_index} {self.state}"
