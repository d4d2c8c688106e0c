"""A test event by REST, for people who want to see that events arrive."""

from typing import Any

import msgspec
from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl.api.idempotency import Answer, once
from fl.api.permissions import ForAdmins
from fl.api.schema import COMMAND_PARAMETERS
from fl.exceptions import NotAllowed
from fl.trials import send_test_event


class TestEventView(APIView):
    """An event that is sent to be seen."""

    permission_classes = [ForAdmins]

    @extend_schema_serializer(component_name="TestEvent")
    class OutputSerializer(serializers.Serializer[Any]):
        """The `error_notification` that was recorded in `system`."""

        code = serializers.CharField()
        severity = serializers.CharField()
        title = serializers.CharField()
        detail = serializers.CharField()

    @extend_schema(
        operation_id="test_events_create",
        request=None,
        responses={201: OutputSerializer},
        parameters=COMMAND_PARAMETERS,
    )
    def post(self, request: Request) -> Response:
        """Record a test event; with an `Idempotency-Key`, sending it again records nothing twice."""
        sender = request.user
        if not isinstance(sender, User):
            raise NotAllowed("only people send test events")

        def send() -> Answer:
            payload = send_test_event(sender=sender, now=timezone.now())
            return Answer(status=201, data=self.OutputSerializer(msgspec.to_builtins(payload)).data)

        return once(request, send)
