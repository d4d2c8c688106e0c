"""A run's learning curve over REST: every round, or of very many the least, mean and greatest of a few columns."""

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl.api.authentication import principal_of
from fl.queries.runs import all_lines, visible_run
from fl.series import METRICS, MOST_POINTS, series_of
from fl.snapshots import consistent_read


class WidthSerializer(serializers.Serializer[Any]):
    """How wide the chart is."""

    width = serializers.IntegerField(
        min_value=10,
        max_value=MOST_POINTS,
        default=900,
        help_text=f"Columns at most, usually pixels; it counts where there are over {MOST_POINTS:,} rounds.",
    )


class NumbersField(serializers.ListField):
    """A value for each column; null where nothing finite was measured."""

    child = serializers.FloatField(allow_null=True)


class MetricSeriesSerializer(serializers.Serializer[Any]):
    """One metric, a value for each column."""

    min = NumbersField()
    mean = NumbersField()
    max = NumbersField()
    p10 = NumbersField(help_text="Of the devices' own values; of several rounds the lowest.")
    p90 = NumbersField(help_text="Of the devices' own values; of several rounds the highest.")
    not_finite = serializers.ListField(
        child=serializers.IntegerField(), help_text="Rounds whose value was measured and is no finite number."
    )


class SeriesSerializer(serializers.Serializer[Any]):
    """The rounds of a run that have a model, or failed, in columns, oldest first."""

    run = serializers.IntegerField()
    label = serializers.CharField()  # type: ignore[assignment]  # DRF takes declared fields off the class
    name = serializers.CharField()
    first = serializers.ListField(child=serializers.IntegerField(), help_text="The first round of each column.")
    last = serializers.ListField(child=serializers.IntegerField(), help_text="The last round of each column.")
    seconds = NumbersField(help_text="From the start of the run to the end of the column's last round.")
    metrics = serializers.DictField(child=MetricSeriesSerializer(), help_text=f"Of {' and '.join(METRICS)}.")
    selected = serializers.ListField(child=serializers.IntegerField())
    updates_received = serializers.ListField(child=serializers.IntegerField())
    failed = serializers.ListField(child=serializers.IntegerField(), help_text="Rounds of each column that failed.")
    on_devices = serializers.BooleanField(help_text="The server has no data of the task: the devices' means are told.")


class SeriesView(APIView):
    """The learning curve of a run."""

    @extend_schema(operation_id="runs_series", parameters=[WidthSerializer], responses=SeriesSerializer)
    def get(self, request: Request, run_id: int) -> Response:
        """Return accuracy and loss of all rounds; over 2,000 rounds as least, mean and greatest of each column."""
        wanted = WidthSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        with consistent_read():
            run = visible_run(principal_of(request), run_id)
            lines = all_lines(run)
        most = MOST_POINTS if len(lines) <= MOST_POINTS else wanted.validated_data["width"]
        series = series_of(lines, started_at=run.started_at, most=most)
        return Response({"run": run.pk, "label": run.label, "name": run.name, **msgspec.to_builtins(series)})
