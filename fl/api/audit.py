"""The audit log over REST, for admins: read it, filtered as its page filters it."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fl.api.permissions import ForAdmins
from fl.models import AuditEntry
from fl.models.audit import Act
from fl.queries.audit import COLUMNS, Wanted, entries_for


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """What somebody did, when and from where."""

    person = serializers.CharField(
        source="person_name", read_only=True, help_text="As called then; empty where nobody was signed in."
    )

    class Meta:
        model = AuditEntry
        fields = list(COLUMNS)
        read_only_fields = fields


class WantedSerializer(serializers.Serializer[Any]):
    """Which entries."""

    person = serializers.CharField(max_length=150, allow_blank=True, default="", help_text="The whole name.")
    act = serializers.ChoiceField(choices=Act.choices, required=False)
    subject = serializers.CharField(
        max_length=200, allow_blank=True, default="", help_text="A part of it, in upper or lower case."
    )
    since = serializers.DateTimeField(default=None)
    until = serializers.DateTimeField(default=None, help_text="Before this moment.")


class AuditList(generics.ListAPIView[AuditEntry]):
    """The audit log, newest first; it is only ever added to."""

    queryset = AuditEntry.objects.none()
    serializer_class = AuditEntrySerializer
    permission_classes = [ForAdmins]

    def get_queryset(self) -> QuerySet[AuditEntry]:
        wanted = WantedSerializer(data=self.request.query_params)
        wanted.is_valid(raise_exception=True)
        return entries_for(Wanted(**wanted.validated_data))

    @extend_schema(parameters=[WantedSerializer])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List who did what, when and from where, newest first."""
        return super().get(request, *args, **kwargs)
