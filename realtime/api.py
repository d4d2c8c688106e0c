"""Connections and broadcasts by REST: figures for operators, speech for admins."""

from dataclasses import asdict
from typing import Any

import msgspec
from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl.api.idempotency import Answer, once
from fl.api.permissions import ForAdmins, ForOperators
from fl.api.schema import COMMAND_PARAMETERS
from fl.exceptions import NotAllowed
from fl.visibility import AUDIENCES
from realtime.broadcasts import BroadcastRequest, send
from realtime.health import health
from realtime.statistics import connection_statistics


class ConnectionsView(APIView):
    """Who is connected, summed over all server processes."""

    permission_classes = [ForOperators]

    @extend_schema_serializer(component_name="ConnectionStatistics")
    class OutputSerializer(serializers.Serializer[Any]):
        """What `realtime.statistics.ConnectionStatistics` holds."""

        connections = serializers.DictField(child=serializers.IntegerField(), help_text="Open connections by type.")
        total = serializers.IntegerField()
        queued_frames = serializers.IntegerField(help_text="Frames that wait in the queues of all connections.")
        queued_bytes = serializers.IntegerField()
        longest_queue = serializers.IntegerField(help_text="Frames in the longest queue of one connection.")
        behind = serializers.IntegerField(help_text="Connections that are being fed from the log.")
        events_per_second = serializers.FloatField()
        frames_per_second = serializers.FloatField(help_text="Frames sent to all connections.")
        bytes_sent = serializers.IntegerField(help_text="WebSocket bytes since each process began, in whole frames.")
        bytes_received = serializers.IntegerField()
        processes = serializers.IntegerField(help_text="Server processes that are alive.")

    @extend_schema(operation_id="connections_retrieve", responses=OutputSerializer)
    def get(self, request: Request) -> Response:
        """Return the figures; each process writes its own every ten seconds."""
        return Response(msgspec.to_builtins(connection_statistics(timezone.now())))


class HealthView(APIView):
    """How what the server stands on is, for whoever watches it or shares work out among servers."""

    authentication_classes = ()
    permission_classes = [AllowAny]

    @extend_schema_serializer(component_name="Health")
    class OutputSerializer(serializers.Serializer[Any]):
        """What this process can reach."""

        database = serializers.ChoiceField(choices=["ok"], help_text="Where it is away, the answer is 503.")
        layer = serializers.ChoiceField(
            choices=["ok", "away", "in_memory"],
            help_text="While it is away events come by the log, late by the poll interval.",
        )

    @extend_schema(operation_id="health_retrieve", responses=OutputSerializer)
    def get(self, request: Request) -> Response:
        """Try the database and the channel layer; without the database the server can do nothing, and answers 503."""
        return Response(asdict(health()))


class BroadcastsView(APIView):
    """What an admin says to everybody of some connection types."""

    permission_classes = [ForAdmins]

    @extend_schema_serializer(component_name="NewBroadcast")
    class InputSerializer(serializers.Serializer[Any]):
        """A broadcast."""

        message = serializers.CharField(max_length=2000)
        audiences = serializers.ListField(child=serializers.ChoiceField(choices=AUDIENCES), min_length=1)
        level = serializers.ChoiceField(choices=["info", "warning", "error"], default="info")
        expires_at = serializers.DateTimeField(required=False, allow_null=True)

    @extend_schema_serializer(component_name="Broadcast")
    class OutputSerializer(InputSerializer):
        """A broadcast as it was sent."""

        sender = serializers.CharField()

    @extend_schema(
        operation_id="broadcasts_create",
        request=InputSerializer,
        responses={201: OutputSerializer},
        parameters=COMMAND_PARAMETERS,
    )
    def post(self, request: Request) -> Response:
        """Broadcast; with an `Idempotency-Key`, sending it again says nothing twice."""
        parsed = self.InputSerializer(data=request.data)
        parsed.is_valid(raise_exception=True)
        wanted = msgspec.convert(parsed.validated_data, BroadcastRequest)
        sender = request.user
        if not isinstance(sender, User):
            raise NotAllowed("only people broadcast")
        return once(request, lambda: Answer(status=201, data=send(wanted, sender=sender, now=timezone.now())))
