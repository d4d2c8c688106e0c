"""The log of what happened: events in streams, each with a counter that has no holes."""

import secrets

from django.db import models


def new_epoch() -> str:
    """Return a random name for one history of a stream."""
    return secrets.token_urlsafe(6)


class Stream(models.Model):
    """A sequence of events and what decides who may see it; the row is the lock on its counter."""

    name = models.CharField(primary_key=True, max_length=64)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.PositiveBigIntegerField(default=0)
    task = models.CharField(max_length=100, blank=True, default="")
    """For the stream of a run: its task; devices that offer it may follow."""
    public = models.BooleanField(default=False)
    """For the stream of a run: everybody may follow."""
    in_trash = models.BooleanField(default=False)
    """For the stream of a run: it lies in the trash, and nobody may follow."""

    def __str__(self) -> str:
        return f"{self.name} at {self.head}"


class ErrorGroup(models.Model):
    """Equal errors of the last seconds: the first was told, those after it are counted until they are told as one."""

    key = models.CharField(primary_key=True, max_length=64)
    """A digest of the stream and of all in which they are equal."""
    stream = models.CharField(max_length=64)
    data = models.TextField()
    """The newest one's payload, in JSON."""
    told_at = models.DateTimeField(db_index=True)
    untold = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.stream}: {self.untold} since {self.told_at:%H:%M:%S}"


class Event(models.Model):
    """Something that happened, as it was sent: never changed, never deleted before its time."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveBigIntegerField()
    event = models.CharField(max_length=40)
    data = models.TextField()
    """The payload's JSON, exactly as it crosses the wire."""
    timestamp = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["stream", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["stream", "seq"], name="event_position_is_unique"),
            models.CheckConstraint(condition=models.Q(seq__gte=1), name="event_seq_counts_from_1"),
        ]
        indexes = [
            # A device's history is looked for among the few statuses, not among all that was told meanwhile.
            models.Index(
                fields=["timestamp"], condition=models.Q(event="device_status"), name="event_device_status_at"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stream_id}#{self.seq} {self.event}"
