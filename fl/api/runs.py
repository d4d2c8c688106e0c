"""Runs over REST: make them, steer them, throw them away, read their rounds and fetch their models."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from django.contrib.auth.models import User
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django_filters.filters import CharFilter, MultipleChoiceFilter
from django_filters.rest_framework import FilterSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import generics, mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl import runs, trash
from fl.api.authentication import person_of, principal_of
from fl.api.idempotency import Answer, once
from fl.api.permissions import ForAdmins
from fl.api.schema import COMMAND_PARAMETERS
from fl.api.streaming import MEDIA_TYPE, send_weights
from fl.exceptions import NotFound
from fl.lifecycle import AssignmentState, RoundState, RunState, run_actions
from fl.models import Assignment, GlobalModel, Round, Run, Update
from fl.queries.run_list import tagged
from fl.queries.trash import run_in_trash
from fl.runs import RunPlan
from fl.tags import LONGEST_TAG, MAX_TAGS
from fl.visibility import runs_for, trash_for

# ── what they look like ───────────────────────────────────────────────────────────────────────────────────────────────


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run with its plan, its state, the commands it takes now, and how far it has come."""

    actions = serializers.SerializerMethodField(help_text="The commands that its state allows.")
    round = serializers.IntegerField(read_only=True, allow_null=True, help_text="Number of its newest round.")
    model_version = serializers.IntegerField(read_only=True, allow_null=True, help_text="Newest published version.")
    best_version = serializers.IntegerField(source="best_model.version", read_only=True, allow_null=True, default=None)
    created_by = serializers.SerializerMethodField(help_text="Null to who is not signed in.")

    class Meta:
        model = Run
        fields = [
            *("id", "label", "name", "tags", "notes", "state", "reason", "actions", "stop_after_round"),
            *("task", "task_digest", "strategy", "strategy_config", "steps", "seed"),
            *("rounds", "cohort_size", "quorum", "cohort_wait_seconds", "deadline_seconds"),
            *("min_examples", "max_update_norm", "local_epochs", "batch_size", "learning_rate", "momentum"),
            *("public", "keep_updates", "is_protected", "round", "model_version", "best_version"),
            *("created_by", "created_at", "started_at", "ended_at"),
        ]
        read_only_fields = fields

    def get_created_by(self, run: Run) -> str | None:
        if run.created_by is None or person_of(self.context["request"]) is None:
            return None
        return run.created_by.get_username()

    def get_actions(self, run: Run) -> list[str]:
        round_state = vars(run)["round_state"]  # which `_runs` annotates
        return run_actions(RunState(run.state), RoundState(round_state) if round_state else None)


class TrashedRunSerializer(serializers.ModelSerializer[Run]):
    """A run in the trash."""

    goes_at = serializers.SerializerMethodField(help_text="When it is deleted for good.")

    class Meta:
        model = Run
        fields = ["id", "label", "name", "state", "task", "strategy", "created_at", "ended_at", "deleted_at", "goes_at"]
        read_only_fields = fields

    def get_goes_at(self, run: Run) -> datetime | None:
        return None if run.deleted_at is None else trash.goes_at(run.deleted_at)


class StepSerializer(serializers.Serializer[Mapping[str, Any]]):
    """A privacy or robustness step before the strategy."""

    name = serializers.CharField()
    config = serializers.DictField(child=serializers.FloatField(), required=False)


class NewRunSerializer(serializers.Serializer[RunPlan]):
    """What a run is to be; what is left out takes the task's and the strategy's defaults."""

    name = serializers.CharField(max_length=100)
    task = serializers.CharField()
    strategy = serializers.CharField(default=RunPlan.strategy)
    rounds = serializers.IntegerField(default=RunPlan.rounds)
    cohort_size = serializers.IntegerField(default=RunPlan.cohort_size)
    quorum = serializers.IntegerField(allow_null=True, default=None, help_text="As large as the cohort unless given.")
    seed = serializers.IntegerField(default=RunPlan.seed)
    strategy_config = serializers.DictField(child=serializers.FloatField(), default=dict)
    steps = StepSerializer(many=True, default=list)
    local_epochs = serializers.IntegerField(allow_null=True, default=None)
    batch_size = serializers.IntegerField(allow_null=True, default=None)
    learning_rate = serializers.FloatField(allow_null=True, default=None)
    momentum = serializers.FloatField(allow_null=True, default=None)
    cohort_wait_seconds = serializers.FloatField(default=RunPlan.cohort_wait_seconds)
    deadline_seconds = serializers.FloatField(default=RunPlan.deadline_seconds)
    min_examples = serializers.IntegerField(default=RunPlan.min_examples)
    max_update_norm = serializers.FloatField(allow_null=True, default=None)
    public = serializers.BooleanField(default=RunPlan.public)
    keep_updates = serializers.BooleanField(default=RunPlan.keep_updates)
    tags = serializers.ListField(child=serializers.CharField(max_length=LONGEST_TAG), default=list)
    notes = serializers.CharField(allow_blank=True, default=RunPlan.notes)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse names that mean nothing: a slip of the pen must not leave a default in force."""
        _refuse_unknown(self)
        return attrs


class DescriptionSerializer(serializers.Serializer[Mapping[str, Any]]):
    """How a run is called, tagged and noted; what is left out stays."""

    name = serializers.CharField(max_length=100, required=False)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=LONGEST_TAG), max_length=MAX_TAGS, required=False
    )
    notes = serializers.CharField(max_length=2000, allow_blank=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse names that mean nothing, and those of what does not change."""
        _refuse_unknown(self)
        return attrs


def _refuse_unknown(serializer: serializers.Serializer[Any]) -> None:
    unknown = sorted(set(serializer.initial_data) - set(serializer.fields))
    if unknown:
        raise serializers.ValidationError(dict.fromkeys(unknown, "there is no such field, or it does not change"))


class StopSerializer(serializers.Serializer[Mapping[str, bool]]):
    """When a run stops: after the round that is training, or now."""

    after_round = serializers.BooleanField(default=False)


class ExtensionSerializer(serializers.Serializer[Mapping[str, float]]):
    """By how much a deadline is extended."""

    seconds = serializers.FloatField(help_text=f"Above 0, at most {runs.MAX_EXTENSION_SECONDS}, which is a day.")


class RoundSerializer(serializers.ModelSerializer[Round]):
    """A round and how many updates it got."""

    base_version = serializers.IntegerField(source="base_model.version", read_only=True)
    version = serializers.IntegerField(read_only=True, allow_null=True, help_text="The model version it made.")
    metrics = serializers.JSONField(read_only=True, allow_null=True, help_text="Of that version, on the test split.")
    selected = serializers.IntegerField(read_only=True)
    updates_received = serializers.IntegerField(read_only=True)

    class Meta:
        model = Round
        fields = [
            *("number", "state", "reason", "base_version", "version", "metrics", "device_metrics"),
            *("selected", "updates_received"),
            *("opened_at", "started_at", "deadline_at", "closed_at", "ended_at"),
        ]
        read_only_fields = fields


class UpdateSerializer(serializers.ModelSerializer[Update]):
    """What became of what a device sent."""

    class Meta:
        model = Update
        fields = ["state", "code", "reason", "num_examples", "metrics", "norm", "digest", "size", "received_at"]
        read_only_fields = fields


class AssignmentSerializer(serializers.ModelSerializer[Assignment]):
    """One device's part of a round."""

    device_name = serializers.CharField(source="device.name", read_only=True)
    # DRF takes declared fields off the class, so that these hide no attribute of it, here and below.
    update = UpdateSerializer(  # type: ignore[assignment]  # see above
        read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Assignment
        fields = [
            *("id", "cohort_index", "device", "device_name", "state", "reason", "progress", "progress_at", "loss"),
            *("assigned_at", "ended_at", "update"),
        ]
        read_only_fields = fields


class RoundDetailSerializer(RoundSerializer):
    """A round with every device's part of it."""

    assignments = AssignmentSerializer(many=True, read_only=True)

    class Meta(RoundSerializer.Meta):
        fields = [*RoundSerializer.Meta.fields, "assignments"]
        read_only_fields = fields


class ModelSerializer(serializers.ModelSerializer[GlobalModel]):
    """A published version of what a run has learned."""

    round = serializers.IntegerField(source="round.number", read_only=True, allow_null=True, default=None)
    parent = serializers.IntegerField(  # type: ignore[assignment]  # see AssignmentSerializer
        source="parent.version", read_only=True, allow_null=True, default=None
    )
    is_best = serializers.SerializerMethodField()
    weights_url = serializers.SerializerMethodField(help_text="Where the weights are to be had, as safetensors.")

    class Meta:
        model = GlobalModel
        fields = [
            *("version", "parent", "round", "digest", "size", "metrics", "is_best", "weights_url"),
            *("created_at", "published_at"),
        ]
        read_only_fields = fields

    def get_is_best(self, model: GlobalModel) -> bool:
        return model.run.best_model_id == model.pk

    @extend_schema_field(OpenApiTypes.URI_REF)
    def get_weights_url(self, model: GlobalModel) -> str:
        return f"/api/v1/runs/{model.run_id}/models/{model.version}/weights/"


# ── what one can do ───────────────────────────────────────────────────────────────────────────────────────────────────


class Steer(Protocol):
    """A use case that changes what a run is doing."""

    def __call__(self, *, run: Run, now: datetime, by: User | None) -> Run:
        """Do it, and return the run as it is then."""


class RunFilter(FilterSet):
    """Which runs."""

    state = MultipleChoiceFilter(choices=[(state.value, state.value) for state in RunState])
    task = CharFilter()
    strategy = CharFilter()
    tag = CharFilter(method="with_tag", label="Has this tag; upper and lower case are the same.")
    search = CharFilter(field_name="name", lookup_expr="icontains", label="Part of the name.")

    def with_tag(self, runs: QuerySet[Run], name: str, tag: str) -> QuerySet[Run]:
        """Keep the runs that have a tag."""
        return tagged(runs, tag)


class RunViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Run]):
    """Runs, newest first."""

    queryset = Run.objects.none()
    serializer_class = RunSerializer
    filterset_class = RunFilter
    lookup_value_converter = "int"

    def get_queryset(self) -> QuerySet[Run]:
        return _runs(self.request)

    @extend_schema(request=NewRunSerializer, responses={201: RunSerializer}, parameters=COMMAND_PARAMETERS)
    def create(self, request: Request) -> Response:
        """Make a run, which waits to be started."""
        wanted = NewRunSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        plan = RunPlan(**{field.name: wanted.validated_data[field.name] for field in fields(RunPlan)})
        by, now = person_of(request), timezone.now()
        return once(request, lambda: self._answer(runs.create_run(plan=plan, created_by=by, now=now), status=201))

    @extend_schema(request=DescriptionSerializer, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    def partial_update(self, request: Request, pk: int) -> Response:
        """Change a run's name, tags or notes; nothing else of it changes."""
        wanted = DescriptionSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return self._steer(request, partial(runs.describe_run, **wanted.validated_data))

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def start(self, request: Request, pk: int) -> Response:
        """Let a pending run begin."""
        return self._steer(request, runs.start_run)

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def pause(self, request: Request, pk: int) -> Response:
        """Pause a running run: its open round finishes, none opens."""
        return self._steer(request, runs.pause_run)

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def resume(self, request: Request, pk: int) -> Response:
        """Let a paused run go on."""
        return self._steer(request, runs.resume_run)

    @extend_schema(request=ExtensionSerializer, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], url_path="extend-deadline", filterset_class=None)
    def extend_deadline(self, request: Request, pk: int) -> Response:
        """Extend the deadline of the round that is training; where it has just passed, from now on."""
        wanted = ExtensionSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return self._steer(request, partial(runs.extend_round, seconds=wanted.validated_data["seconds"]))

    @extend_schema(request=StopSerializer, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None)
    def stop(self, request: Request, pk: int) -> Response:
        """Stop a run: after the round that is training, or now, which cancels what devices are doing."""
        wanted = StopSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return self._steer(request, partial(runs.stop_run, after_round=wanted.validated_data["after_round"]))

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None, permission_classes=[ForAdmins])
    def protect(self, request: Request, pk: int) -> Response:
        """Protect a run from the trash."""
        return self._steer(request, trash.protect_run)

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None, permission_classes=[ForAdmins])
    def unprotect(self, request: Request, pk: int) -> Response:
        """End the protection of a run."""
        return self._steer(request, trash.unprotect_run)

    @extend_schema(responses={200: TrashedRunSerializer}, parameters=COMMAND_PARAMETERS)
    def destroy(self, request: Request, pk: int) -> Response:
        """Move a run that has ended to the trash, from where it can be restored until it is deleted for good."""
        by, now = person_of(request), timezone.now()

        # It is looked up within: sent again, there is no such run, and yet the same answer.
        def command() -> Answer:
            return Answer(200, TrashedRunSerializer(trash.move_to_trash(run=self.get_object(), now=now, by=by)).data)

        return once(request, command)

    @extend_schema(request=None, responses=RunSerializer, parameters=COMMAND_PARAMETERS)
    @action(detail=True, methods=["post"], filterset_class=None, permission_classes=[ForAdmins])
    def restore(self, request: Request, pk: int) -> Response:
        """Restore a run from the trash."""
        by, now = person_of(request), timezone.now()

        def command() -> Answer:
            return self._answer(
                trash.restore_run(run=run_in_trash(principal_of(request), pk), now=now, by=by), status=200
            )

        return once(request, command)

    @extend_schema(operation_id="runs_trash_list", responses=TrashedRunSerializer(many=True))
    @action(
        detail=False,
        filterset_class=None,
        permission_classes=[ForAdmins],
        serializer_class=TrashedRunSerializer,
        url_path="trash",
    )
    def in_trash(self, request: Request) -> Response:
        """List the runs in the trash, what came last first."""
        found = trash_for(principal_of(request)).order_by("-deleted_at", "-pk")
        return self.get_paginated_response(self.get_serializer(self.paginate_queryset(found), many=True).data)

    def _steer(self, request: Request, use_case: Steer) -> Response:
        run, by, now = self.get_object(), person_of(request), timezone.now()
        return once(request, lambda: self._answer(use_case(run=run, now=now, by=by), status=200))

    def _answer(self, run: Run, *, status: int) -> Answer:
        return Answer(status, self.get_serializer(self.get_queryset().get(pk=run.pk)).data)


class RoundList(generics.ListAPIView[Round]):
    """The rounds of a run, from the first."""

    queryset = Round.objects.none()
    serializer_class = RoundSerializer

    def get_queryset(self) -> QuerySet[Round]:
        return _rounds(_run(self.request, self.kwargs["run_id"]))


class RoundDetail(generics.RetrieveAPIView[Round]):
    """A round with every device's part of it."""

    queryset = Round.objects.none()
    serializer_class = RoundDetailSerializer

    def get_object(self) -> Round:
        rounds = _rounds(_run(self.request, self.kwargs["run_id"]))
        return get_object_or_404(
            rounds.prefetch_related("assignments__device", "assignments__update"), number=self.kwargs["number"]
        )


class ModelList(generics.ListAPIView[GlobalModel]):
    """The published model versions of a run, from the initial one."""

    queryset = GlobalModel.objects.none()
    serializer_class = ModelSerializer

    def get_queryset(self) -> QuerySet[GlobalModel]:
        return _models(_run(self.request, self.kwargs["run_id"]))


class ModelDetail(generics.RetrieveAPIView[GlobalModel]):
    """One published version: by number, or `best`, or `last`."""

    queryset = GlobalModel.objects.none()
    serializer_class = ModelSerializer

    def get_object(self) -> GlobalModel:
        return _model(_run(self.request, self.kwargs["run_id"]), self.kwargs["version"])


class ModelWeights(APIView):
    """The weights of a published version: by number, or `best`, or `last`."""

    @extend_schema(
        responses={(200, MEDIA_TYPE): OpenApiTypes.BINARY, (206, MEDIA_TYPE): OpenApiTypes.BINARY, 304: None}
    )
    def get(self, request: Request, run_id: int, version: str) -> HttpResponseBase:
        """Download the weights as safetensors; the ETag is their digest."""
        model = _model(_run(request, run_id), version)
        name = f"{model.run.label}-v{model.version}.safetensors"
        return send_weights(request._request, model, filename=name)


# ── looking them up ───────────────────────────────────────────────────────────────────────────────────────────────────


def _runs(request: Request) -> QuerySet[Run]:
    newest_round = Round.objects.filter(run=OuterRef("pk")).order_by("-number")
    newest_model = GlobalModel.objects.filter(run=OuterRef("pk"), published_at__isnull=False).order_by("-version")
    return (
        runs_for(principal_of(request))
        .select_related("best_model", "created_by")
        .annotate(
            round=Subquery(newest_round.values("number")[:1]),
            round_state=Subquery(newest_round.values("state")[:1]),
            model_version=Subquery(newest_model.values("version")[:1]),
        )
        .order_by("-pk")
    )


def _run(request: Request, run_id: int) -> Run:
    run = runs_for(principal_of(request)).filter(pk=run_id).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run


def _rounds(run: Run) -> QuerySet[Round]:
    received = Count("assignments", filter=Q(assignments__state=AssignmentState.ACCEPTED))
    published = GlobalModel.objects.filter(round=OuterRef("pk"), published_at__isnull=False)
    return (
        run.round_set.select_related("base_model")
        .annotate(
            selected=Count("assignments"),
            updates_received=received,
            version=Subquery(published.values("version")[:1]),
            metrics=Subquery(published.values("metrics")[:1]),
        )
        .order_by("number")
    )


def _models(run: Run) -> QuerySet[GlobalModel]:
    return run.models.filter(published_at__isnull=False).select_related("run", "round", "parent").order_by("version")


def _model(run: Run, version: str) -> GlobalModel:
    models = _models(run)
    match version:
        case "last":
            model = models.last()
        case "best":
            model = models.filter(pk=run.best_model_id).first() if run.best_model_id else None
        case _:
            # Python reads no number of some thousand digits.
            is_number = version.isdecimal() and len(version) < 20
            model = models.filter(version=int(version)).first() if is_number else None
    if model is None:
        raise NotFound(f"run {run.label} has no model {version}", action="see the run's list of models")
    return model
