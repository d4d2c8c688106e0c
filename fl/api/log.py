"""The log of what happened over REST: each stream that one may see, from any place in it."""

import json
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fl.api.authentication import principal_of
from fl.exceptions import NotFound
from fl.models import Event, Stream
from fl.visibility import streams_for

DEFAULT_LIMIT, MAX_LIMIT = 100, 500


class StreamSerializer(serializers.ModelSerializer[Stream]):
    """A stream and the position of its newest event."""

    class Meta:
        model = Stream
        fields = ["name", "epoch", "head"]
        read_only_fields = fields


class EventSerializer(serializers.ModelSerializer[Event]):
    """An event as it was sent to those who were connected."""

    # DRF takes declared fields off the class, so that this hides no attribute of it.
    data = serializers.SerializerMethodField(  # type: ignore[assignment]  # see above
        help_text="The payload of this kind of event."
    )

    class Meta:
        model = Event
        fields = ["seq", "event", "timestamp", "data"]
        read_only_fields = fields

    def get_data(self, event: Event) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(event.data)
        return data


class ExcerptSerializer(serializers.Serializer[Any]):
    """A piece of a stream's log, in order and without holes."""

    stream = serializers.CharField()
    epoch = serializers.CharField(help_text="Another epoch is another history: start again from 0.")
    head = serializers.IntegerField(help_text="`seq` of the newest event.")
    events = EventSerializer(many=True)
    next = serializers.IntegerField(allow_null=True, help_text="The `after` that goes on from here; null at the end.")


class PlaceSerializer(serializers.Serializer[Any]):
    """Which piece of which stream."""

    stream = serializers.CharField(help_text="Such as `system` or `run:7`.")
    after = serializers.IntegerField(
        min_value=0, max_value=2**63 - 1, default=None, help_text="Give what follows this `seq`; else the newest."
    )
    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT)


class StreamList(generics.ListAPIView[Stream]):
    """The streams that you may see, with their positions."""

    queryset = Stream.objects.none()
    serializer_class = StreamSerializer
    # Visibility is decided for each stream; there are some for everybody.
    permission_classes = [AllowAny]

    def get_queryset(self) -> QuerySet[Stream]:
        return streams_for(principal_of(self.request)).order_by("name")


class EventList(APIView):
    """Events of one stream."""

    permission_classes = [AllowAny]

    @extend_schema(parameters=[PlaceSerializer], responses=ExcerptSerializer)
    def get(self, request: Request) -> Response:
        """Read a stream's log: what follows `after`, else its newest events."""
        wanted = PlaceSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        name, after, limit = (wanted.validated_data[field] for field in ("stream", "after", "limit"))
        stream = streams_for(principal_of(request)).filter(pk=name).first()
        if stream is None:
            raise NotFound(f"there is no stream {name} that you may see", action="see the list of streams")
        start = max(0, stream.head - limit) if after is None else after
        found = list(stream.events.filter(seq__gt=start, seq__lte=stream.head).order_by("seq")[:limit])
        reached = found[-1].seq if found else stream.head
        excerpt = {
            "stream": stream.name,
            "epoch": stream.epoch,
            "head": stream.head,
            "events": found,
            "next": reached if reached < stream.head else None,
        }
        return Response(ExcerptSerializer(excerpt).data)
