"""What makes a person's requests safe to send twice, and a sign-in link safe to print."""

from django.conf import settings
from django.db import models


class IdempotentRequest(models.Model):
    """A command that was done under a key of its sender's choosing; the same again answers the same for a day."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=100)
    request_hash = models.CharField(max_length=64)
    """SHA-256 of method, path and body: a key belongs to one request."""
    status = models.PositiveSmallIntegerField()
    answer = models.TextField()
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_is_unique")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.key}"


class SignInCode(models.Model):
    """Signs one person in, once, for ten minutes; only its hash is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    code_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"for {self.user_id} until {self.expires_at:%H:%M:%S}"
