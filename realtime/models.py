"""What each server process says of itself, and what they agree on: statistics are summed, an outage is told once."""

from django.db import models


class ServerProcess(models.Model):
    """A server process, as long as it is believed to live; it writes its row every few seconds."""

    instance = models.CharField(max_length=60, unique=True)
    """Host, process id and a random end: a restarted process is another one."""
    started_at = models.DateTimeField()
    heard_at = models.DateTimeField()
    lease_until = models.DateTimeField(db_index=True)
    connections = models.JSONField(default=dict)
    """Open connections by type."""
    queued_frames = models.PositiveIntegerField(default=0)
    """Frames that wait in the queues of all connections."""
    queued_bytes = models.PositiveBigIntegerField(default=0)
    longest_queue = models.PositiveIntegerField(default=0)
    """Frames in the longest queue of one connection."""
    behind = models.PositiveIntegerField(default=0)
    """Connections that are being fed from the log."""
    events_per_second = models.FloatField(default=0)
    """Events that this process heard of, each counted once."""
    frames_per_second = models.FloatField(default=0)
    """Frames that it sent to its connections."""
    bytes_sent = models.PositiveBigIntegerField(default=0)
    """Since it began, over WebSockets, in whole frames; without what TCP and TLS add."""
    bytes_received = models.PositiveBigIntegerField(default=0)
    layer_is_away = models.BooleanField(default=False)
    """It does not hear what it says to itself over the channel layer."""

    class Meta:
        ordering = ["instance"]
        verbose_name_plural = "server processes"

    def __str__(self) -> str:
        return self.instance

    @property
    def sockets(self) -> int:
        """How many connections are open to it, of all types."""
        return sum(self.connections.values())


class LayerOutage(models.Model):
    """The outage of the channel layer that people were told of: one row at most, of the process that was first."""

    began_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"since {self.began_at:%Y-%m-%d %H:%M:%S}"
