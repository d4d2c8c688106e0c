"""What a run can be made of: the tasks that this server has, the strategies, and the steps before them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl.coordination import eligible_devices
from fl.models import Run
from fl.queries.qualifying import qualifying
from fl.strategies import STEPS, STRATEGIES, Parameter, required_support
from fl.tasks import digest_of_task, spec_of_task, task_named, task_names


@dataclass(frozen=True)
class TaskEntry:
    """A task as one chooses it for a run.

    Attributes:
        qualified_devices: how many could be selected for a run of it now.
    """

    name: str
    description: str
    digest: str
    num_parameters: int
    supports: list[str]
    defaults: Mapping[str, float]
    qualified_devices: int


class DefaultsSerializer(serializers.Serializer[Any]):
    """The settings that a run starts from unless it says otherwise."""

    local_epochs = serializers.IntegerField()
    batch_size = serializers.IntegerField()
    learning_rate = serializers.FloatField()
    momentum = serializers.FloatField()


class TaskSerializer(serializers.Serializer[Any]):
    """A task that this server has, and how many devices could train it now."""

    name = serializers.CharField()
    description = serializers.CharField()
    digest = serializers.CharField(help_text="Over the names, shapes and dtypes of its weights.")
    num_parameters = serializers.IntegerField()
    supports = serializers.ListField(child=serializers.CharField(), help_text="What its training loop can do.")
    defaults = DefaultsSerializer()
    qualified_devices = serializers.IntegerField(help_text="How many devices could be selected for it now.")


class ParameterSerializer(serializers.Serializer[Any]):
    """A number that a strategy or step can be given; both ends of its range are allowed."""

    name = serializers.CharField()
    default = serializers.FloatField()
    minimum = serializers.FloatField()
    maximum = serializers.FloatField()
    help = serializers.CharField()


class StrategySerializer(serializers.Serializer[Any]):
    """A way to make the next global model out of contributions."""

    name = serializers.CharField()
    description = serializers.CharField()
    requires = serializers.ListField(child=serializers.CharField(), help_text="Of a task's training loop.")
    parameters = ParameterSerializer(many=True)


class StepKindSerializer(serializers.Serializer[Any]):
    """A privacy or robustness step before a strategy."""

    name = serializers.CharField()
    description = serializers.CharField()
    parameters = ParameterSerializer(many=True)


class WhomSerializer(serializers.Serializer[Any]):
    """Whom to count as qualified."""

    strategy = serializers.ChoiceField(choices=list(STRATEGIES), default="fedavg")
    min_examples = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=1)


class RunIdeaSerializer(WhomSerializer):
    """A run that is being thought of, as far as it decides who qualifies."""

    task = serializers.CharField()


class QualifyingSerializer(serializers.Serializer[Any]):
    """How many devices could take part in a run, and how many miss it by little."""

    qualified = serializers.IntegerField(help_text="Could be selected now.")
    at_work = serializers.IntegerField(help_text="Have enough examples, and are busy with an assignment now.")
    too_few_examples = serializers.IntegerField(help_text="Are online and have fewer examples than are asked for.")


class QualifyingDevices(APIView):
    """Who could take part in a run."""

    @extend_schema(parameters=[RunIdeaSerializer], responses=QualifyingSerializer)
    def get(self, request: Request) -> Response:
        """Count the devices that qualify now for a run of a task."""
        wanted = RunIdeaSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        found = qualifying(**wanted.validated_data, strategy_config={}, now=timezone.now())
        return Response(QualifyingSerializer(found).data)


class TaskList(APIView):
    """The tasks that this server has."""

    @extend_schema(parameters=[WhomSerializer], responses=TaskSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the tasks, each with the number of devices that qualify now."""
        wanted = WhomSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        now = timezone.now()
        entries = [_task(name, wanted.validated_data, now) for name in task_names()]
        return Response(TaskSerializer(entries, many=True).data)


class StrategyList(APIView):
    """The strategies."""

    @extend_schema(responses=StrategySerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the strategies with their parameters."""
        entries = [
            {
                "name": strategy.name,
                "description": strategy.description,
                "requires": sorted(required_support(strategy.name, {})),
                "parameters": list(_parameters(strategy.parameters)),
            }
            for strategy in STRATEGIES.values()
        ]
        return Response(StrategySerializer(entries, many=True).data)


class StepList(APIView):
    """The privacy and robustness steps."""

    @extend_schema(responses=StepKindSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the steps that a run can put before its strategy."""
        entries = [
            {
                "name": step.name,
                "description": step.description,
                "parameters": list(_parameters(step.parameters)),
            }
            for step in STEPS.values()
        ]
        return Response(StepKindSerializer(entries, many=True).data)


def _task(name: str, wanted: Mapping[str, Any], now: datetime) -> TaskEntry:
    task, digest = task_named(name), digest_of_task(name)
    # A run that is not saved: what would be selected for it is what qualifies.
    run = Run(task=name, task_digest=digest, strategy=wanted["strategy"], min_examples=wanted["min_examples"])
    return TaskEntry(
        name=name,
        description=task.description,
        digest=digest,
        num_parameters=sum(tensor.num_elements for tensor in spec_of_task(name).values()),
        supports=sorted(task.supports),
        defaults=asdict(task.defaults),
        qualified_devices=len(eligible_devices(run, now)),
    )


def _parameters(parameters: Mapping[str, Parameter]) -> Iterator[Mapping[str, Any]]:
    for name, parameter in parameters.items():
        yield {"name": name, **asdict(parameter)}
