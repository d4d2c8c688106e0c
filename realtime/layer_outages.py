"""Outages of the channel layer, of which people are told once, however many processes notice.

Each process says in its row that it hears nothing. The first makes the row of the outage, which there can be only once,
and tells of it in the same transaction. The outage is over when no process that lives is without the layer, and whoever
then takes the row away tells of that. So neither a process that notices late nor one that alone is cut off begins the
same outage again.
"""

from datetime import datetime

from django.conf import settings

from edge.protocol.server import ErrorNotification
from fl import events
from realtime.models import LayerOutage, ServerProcess
from realtime.statistics import lease

_THE_ONE = 1


def begin(*, instance: str, started_at: datetime, why: str, now: datetime) -> bool:
    """Note that a process is without the layer; say whether it was the first, and told people."""
    with events.transaction():
        ServerProcess.objects.update_or_create(
            instance=instance,
            defaults={"layer_is_away": True, "heard_at": now, "lease_until": now + lease()},
            create_defaults={
                "layer_is_away": True,
                "heard_at": now,
                "lease_until": now + lease(),
                "started_at": started_at,
            },
        )
        _, is_first = LayerOutage.objects.get_or_create(pk=_THE_ONE, defaults={"began_at": now})
        if not is_first:
            return False
        events.record(
            events.SYSTEM,
            ErrorNotification(
                code="layer_away",
                severity="warning",
                title="Redis is away: what happens is told late",
                detail=f"Events come by the log, up to {settings.QFLARE_POLL_SECONDS:g} s late; "
                f"progress may be missing. {why}",
                action="See to Redis. Nothing is lost, and the servers come back to it by themselves.",
            ),
            now,
        )
    return True


def end(*, instance: str, now: datetime) -> bool:
    """Note that a process has the layer again; say whether all have, so that people know that the outage is over."""
    ServerProcess.objects.filter(instance=instance).update(layer_is_away=False)
    if not LayerOutage.objects.exists():
        return True
    with events.transaction():
        if ServerProcess.objects.filter(layer_is_away=True, lease_until__gt=now).exists():
            return False
        outage = LayerOutage.objects.select_for_update().first()
        if outage is None:
            return True
        outage.delete()
        events.record(
            events.SYSTEM,
            ErrorNotification(
                code="layer_back",
                severity="info",
                title="Redis is back: what happens is told at once again",
                detail=f"It was away for {(now - outage.began_at).total_seconds():.0f} s.",
            ),
            now,
        )
    return True
