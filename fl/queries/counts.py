"""How many there are of what, over the whole server."""

from django.db.models import Count

from fl.lifecycle import RunState
from fl.models import PresenceLease, Run


def runs_by_state() -> dict[str, int]:
    """Count the runs in each state, less those in the trash; no state is left out."""
    counts = {str(state): 0 for state in RunState}
    there = Run.objects.filter(deleted_at__isnull=True)
    counts.update(there.order_by().values_list("state").annotate(runs=Count("pk")))
    return counts


def devices_online() -> int:
    """Count the devices that are announced online."""
    return PresenceLease.objects.count()
