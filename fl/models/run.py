"""Run: a task, a strategy, how many rounds, how large a cohort; and what it has come to."""

from django.conf import settings
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from fl.lifecycle import RunState
from fl.models.fields import choices_of, one_of

MAX_SEED = 2**62


class Run(models.Model):
    """A training of one global model over a number of rounds; its hyperparameters do not change once it exists."""

    name = models.CharField(max_length=100)
    tags = models.JSONField(default=list, blank=True)
    """Short words by which people find it again. Like name and notes they may change: nothing learns by them."""
    notes = models.TextField(blank=True, default="", validators=[MaxLengthValidator(2000)])
    task = models.CharField(max_length=100)
    task_digest = models.CharField(max_length=64)
    strategy = models.CharField(max_length=40)
    strategy_config = models.JSONField(default=dict, blank=True)
    steps = models.JSONField(default=list, blank=True)
    """Privacy and robustness steps before the strategy: [{"name": name, "config": {parameter: value}}, …]."""
    seed = models.PositiveBigIntegerField(validators=[MaxValueValidator(MAX_SEED)])

    rounds = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    cohort_size = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    quorum = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    cohort_wait_seconds = models.FloatField(default=30, validators=[MinValueValidator(0)])
    deadline_seconds = models.FloatField(default=600, validators=[MinValueValidator(0.1)])
    """How long a round may train."""
    min_examples = models.PositiveIntegerField(default=1)
    max_update_norm = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0)])

    local_epochs = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1)])
    batch_size = models.PositiveIntegerField(default=32, validators=[MinValueValidator(1)])
    learning_rate = models.FloatField(default=0.05)
    momentum = models.FloatField(default=0.0)

    public = models.BooleanField(default=False)
    """Everybody may follow it, on `/ws`."""
    keep_updates = models.BooleanField(default=False)
    """Keep the files of updates after their round."""

    state = models.CharField(max_length=12, choices=choices_of(RunState), default=RunState.PENDING)
    reason = models.CharField(max_length=500, blank=True, default="")
    stop_after_round = models.BooleanField(default=False)
    best_model = models.ForeignKey("GlobalModel", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    last_served_at = models.DateTimeField(null=True, blank=True)
    """When a round of it last got a cohort; waiting runs are served least recently served first."""
    is_protected = models.BooleanField(default=False)
    """It cannot be moved to the trash."""
    deleted_at = models.DateTimeField(null=True, blank=True)
    """Since when it lies in the trash (`fl.trash`), where nobody sees it but there."""

    class Meta:
        ordering = ["-pk"]
        constraints = [
            one_of("state", RunState, "run_state_is_known"),
            models.CheckConstraint(condition=Q(rounds__gte=1), name="run_has_a_round"),
            models.CheckConstraint(
                condition=Q(quorum__gte=1, quorum__lte=F("cohort_size")), name="run_quorum_within_cohort"
            ),
            models.CheckConstraint(
                condition=Q(local_epochs__gte=1, batch_size__gte=1, deadline_seconds__gt=0, cohort_wait_seconds__gte=0),
                name="run_plan_is_possible",
            ),
            models.CheckConstraint(
                condition=Q(learning_rate__gt=0, momentum__gte=0, momentum__lt=1), name="run_rates_are_possible"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["completed", "failed", "stopped"], ended_at__isnull=False)
                | Q(state__in=["pending", "running", "paused"], ended_at__isnull=True),
                name="run_that_ended_says_when",
            ),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(ended_at__isnull=False, is_protected=False),
                name="run_in_the_trash_is_over_and_unprotected",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.label} {self.name}"

    @property
    def label(self) -> str:
        """Short and readable: r-0042."""
        return f"r-{self.pk:04d}"

    @property
    def stream(self) -> str:
        return f"run:{self.pk}"
