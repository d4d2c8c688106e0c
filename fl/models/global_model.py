"""GlobalModel: one version of what a run has learned, with the strategy's state beside it."""

from django.db import models
from django.db.models import Q

from fl.models.round import Round
from fl.models.run import Run


class GlobalModel(models.Model):
    """A version of a run's weights; a candidate until it is published, and never changed after."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="models")
    version = models.PositiveIntegerField()
    """0 is the initial one; a failed round makes none."""
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    round = models.OneToOneField(Round, on_delete=models.CASCADE, null=True, blank=True, related_name="model")
    digest = models.CharField(max_length=64, db_index=True)
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the weights."""
    file = models.CharField(max_length=200)
    size = models.PositiveBigIntegerField()
    """Bytes of the file."""
    strategy_state_file = models.CharField(max_length=200)
    metrics = models.JSONField(null=True, blank=True)
    """Server evaluation on the task's test split; null where the server has no data of the task."""
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run", "version"]
        constraints = [
            models.UniqueConstraint(fields=["run", "version"], name="model_version_is_unique"),
            models.CheckConstraint(
                condition=Q(version=0, parent__isnull=True, round__isnull=True)
                | Q(version__gte=1, parent__isnull=False, round__isnull=False),
                name="model_has_a_parent_and_a_round_unless_initial",
            ),
        ]

    def __str__(self) -> str:
        return f"r-{self.run_id:04d} v{self.version}"
