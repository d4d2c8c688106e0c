"""Devices over REST: see who is there, name them, decide who takes part, and issue the tokens that let new ones in."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.utils import timezone
from django_filters.filters import CharFilter, MultipleChoiceFilter
from django_filters.rest_framework import FilterSet
from django_filters.rest_framework.filters import BooleanFilter
from drf_spectacular.utils import extend_schema
from rest_framework import generics, mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fl import devices
from fl.api.authentication import person_of
from fl.api.idempotency import Answer, once
from fl.api.permissions import ForAdmins, ForOperators
from fl.api.schema import COMMAND_PARAMETERS
from fl.lifecycle import OPEN_ASSIGNMENTS, DeviceState
from fl.models import Assignment, Device, DeviceTask, EnrollmentToken
from fl.tags import LONGEST_TAG, MAX_TAGS

# ── what they look like ───────────────────────────────────────────────────────────────────────────────────────────────


class OfferSerializer(serializers.ModelSerializer[DeviceTask]):
    """A task that a device offered when it last connected."""

    class Meta:
        model = DeviceTask
        fields = ["task", "digest", "num_examples", "supports"]
        read_only_fields = fields


class DeviceSerializer(serializers.ModelSerializer[Device]):
    """A device: its state, whether it is there, and what it is doing."""

    presence = serializers.SerializerMethodField(help_text="`online` or `offline`.")
    activity = serializers.SerializerMethodField(help_text="`idle`, or the state of its open assignment.")
    run = serializers.SerializerMethodField(help_text="Id of the run that it works for.")
    round = serializers.SerializerMethodField(help_text="Number of the round that it works for.")
    fingerprint = serializers.SerializerMethodField(help_text="Of its key; null to who is not signed in.")
    tags = serializers.ListField(child=serializers.CharField(), read_only=True)
    tasks = OfferSerializer(many=True, read_only=True)

    class Meta:
        model = Device
        fields = [
            *("id", "name", "tags", "state", "state_reason", "presence", "activity", "run", "round", "tasks"),
            *("algorithm", "fingerprint", "protocol", "edge_version", "enrolled_at", "last_heard_at"),
        ]
        read_only_fields = fields

    def get_presence(self, device: Device) -> str:
        return "online" if hasattr(device, "lease") else "offline"

    def get_activity(self, device: Device) -> str:
        assignment = _open_assignment(device)
        return assignment.state if assignment else "idle"

    def get_run(self, device: Device) -> int | None:
        assignment = _open_assignment(device)
        return assignment.round.run_id if assignment else None

    def get_round(self, device: Device) -> int | None:
        assignment = _open_assignment(device)
        return assignment.round.number if assignment else None

    def get_fingerprint(self, device: Device) -> str | None:
        return device.fingerprint if person_of(self.context["request"]) else None


class DeviceChangesSerializer(serializers.Serializer[Mapping[str, Any]]):
    """How people call a device and find it again; what is left out stays."""

    name = serializers.CharField(max_length=100, required=False)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=LONGEST_TAG), max_length=MAX_TAGS, required=False
    )


class ReasonSerializer(serializers.Serializer[Mapping[str, str]]):
    """Why, for those who wonder later."""

    reason = serializers.CharField(max_length=500, allow_blank=True, default="")


class TokenSerializer(serializers.ModelSerializer[EnrollmentToken]):
    """A token without its secret, which nobody has any more."""

    created_by = serializers.CharField(source="created_by.username", read_only=True, allow_null=True, default=None)

    class Meta:
        model = EnrollmentToken
        fields = ["id", "label", "auto_approve", "created_by", "created_at", "expires_at", "used_at", "device"]
        read_only_fields = fields


class NewTokenSerializer(serializers.Serializer[Mapping[str, Any]]):
    """What a token is for and how long it lives."""

    # DRF takes declared fields off the class, so that this hides no attribute of it.
    label = serializers.CharField(  # type: ignore[assignment]  # see above
        max_length=100, allow_blank=True, default=""
    )
    auto_approve = serializers.BooleanField(default=False, help_text="The device takes part at once.")
    lifetime_hours = serializers.FloatField(default=24.0, min_value=0, max_value=EnrollmentToken.MAX_LIFETIME_HOURS)


class IssuedTokenSerializer(TokenSerializer):
    """A token as it is issued, with the text to hand to the device."""

    token = serializers.SerializerMethodField(help_text="Shown once; null when a command is repeated by its key.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields

    def get_token(self, token: EnrollmentToken) -> str | None:
        text: str | None = self.context.get("text")
        return text


# ── what one can do ───────────────────────────────────────────────────────────────────────────────────────────────────


class DeviceFilter(FilterSet):
    """Which devices."""

    state = MultipleChoiceFilter(choices=[(state.value, state.value) for state in DeviceState])
    online = BooleanFilter(field_name="lease", lookup_expr="isnull", exclude=True)
    task = CharFilter(field_name="tasks__task", label="Offers this task.")
    search = CharFilter(field_name="name", lookup_expr="icontains", label="Part of the name.")


class DeviceViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Device]):
    """Devices, by name."""

    queryset = Device.objects.none()
    serializer_class = DeviceSerializer
    filterset_class = DeviceFilter
    lookup_value_converter = "int"

    def get_queryset(self) -> QuerySet[Device]:
        at_work = Assignment.objects.filter(state__in=OPEN_ASSIGNMENTS).select_related("round")
        return (
            Device.objects.select_related("lease")
            .prefetch_related("tasks", Prefetch("assignments", at_work, to_attr="open_assignments"))
            .order_by("name")
        )

    @extend_schema(request=DeviceChangesSerializer, responses=DeviceSerializer, parameters=COMMAND_PARAMETERS)
    def partial_update(self, request: Request, pk: int) -> Response:
        """Rename a device, or give it other tags."""
        wanted = DeviceChangesSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return self._decide(request, partial(devices.describe_device, **wanted.validated_data))

    @extend_schema(request=None, responses=DeviceSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def approve(self, request: Request, pk: int) -> Response:
        """Let a pending device take part."""
        return self._decide(request, devices.approve)

    @extend_schema(request=ReasonSerializer, responses=DeviceSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def suspend(self, request: Request, pk: int) -> Response:
        """Bar an active device until it is reinstated."""
        return self._decide(request, partial(devices.suspend, reason=_reason(request)))

    @extend_schema(request=None, responses=DeviceSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def reinstate(self, request: Request, pk: int) -> Response:
        """Let a suspended device take part again."""
        return self._decide(request, devices.reinstate)

    @extend_schema(request=ReasonSerializer, responses=DeviceSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None, permission_classes=[ForAdmins])
    def revoke(self, request: Request, pk: int) -> Response:
        """Bar a device for good."""
        return self._decide(request, partial(devices.revoke, reason=_reason(request)))

    def _decide(self, request: Request, use_case: Callable[..., Device]) -> Response:
        device, now = self.get_object(), timezone.now()

        def command() -> Answer:
            use_case(device=device, now=now, by=person_of(request))
            return Answer(200, self.get_serializer(self.get_queryset().get(pk=device.pk)).data)

        return once(request, command)


class TokenList(generics.ListAPIView[EnrollmentToken]):
    """Enrolment tokens, newest first; their secrets are not kept."""

    queryset = EnrollmentToken.objects.select_related("created_by").order_by("-created_at", "-pk")
    serializer_class = TokenSerializer
    permission_classes = [ForOperators]

    @extend_schema(request=NewTokenSerializer, responses={201: IssuedTokenSerializer}, parameters=COMMAND_PARAMETERS)
    def post(self, request: Request) -> Response:
        """Issue a token that lets one device in, once; its text is in this answer and nowhere else."""
        wanted = NewTokenSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        values, now = wanted.validated_data, timezone.now()

        def command() -> Answer:
            token, text = devices.issue_token(
                label=values["label"],
                auto_approve=values["auto_approve"],
                lifetime=timedelta(hours=values["lifetime_hours"]),
                created_by=person_of(request),
                now=now,
            )
            kept = IssuedTokenSerializer(token).data
            return Answer(201, IssuedTokenSerializer(token, context={"text": str(text)}).data, kept=kept)

        return once(request, command)


def _open_assignment(device: Device) -> Assignment | None:
    at_work: list[Assignment] = device.open_assignments  # type: ignore[attr-defined]  # the prefetch's
    return at_work[0] if at_work else None


def _reason(request: Request) -> str:
    wanted = ReasonSerializer(data=request.data)
    wanted.is_valid(raise_exception=True)
    reason: str = wanted.validated_data["reason"]
    return reason
