"""Round: a cohort, a deadline, a state, and the claim of the coordinator that works on it."""

from django.db import models
from django.db.models import F, Q

from fl.lifecycle import OPEN_ROUNDS, RoundState
from fl.models.fields import choices_of, one_of
from fl.models.run import Run


class Round(models.Model):
    """One turn of a run: select, train, aggregate, evaluate."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="round_set")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=choices_of(RoundState), default=RoundState.PENDING)
    reason = models.CharField(max_length=500, blank=True, default="")
    """Why it failed, or what it waits for."""
    base_model = models.ForeignKey("GlobalModel", on_delete=models.PROTECT, related_name="rounds_from")
    opened_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    """When it took no more updates."""
    ended_at = models.DateTimeField(null=True, blank=True)
    claim_token = models.CharField(max_length=40, blank=True, default="")
    claimed_until = models.DateTimeField(null=True, blank=True)
    device_metrics = models.JSONField(default=dict, blank=True)
    """Metric → mean (weighted by num_examples), p10 and p90 over the devices' own."""

    class Meta:
        ordering = ["run", "number"]
        constraints = [
            one_of("state", RoundState, "round_state_is_known"),
            models.UniqueConstraint(fields=["run", "number"], name="round_number_is_unique"),
            models.UniqueConstraint(
                fields=["run"], condition=Q(state__in=sorted(OPEN_ROUNDS)), name="run_has_one_open_round"
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="round_counts_from_1"),
            models.CheckConstraint(
                condition=Q(state=RoundState.PENDING)
                | Q(state=RoundState.STOPPED)
                # The comparison alone would let a missing deadline pass: unknown is not false.
                | Q(started_at__isnull=False, deadline_at__isnull=False, deadline_at__gt=F("started_at")),
                name="round_that_started_has_a_deadline",
            ),
        ]

    def __str__(self) -> str:
        return f"r-{self.run_id:04d} round {self.number}"
