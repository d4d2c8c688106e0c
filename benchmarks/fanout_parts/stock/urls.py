"""The list that clients poll: Django REST framework's own view, for signed-in people."""

from django.urls import path
from rest_framework.generics import ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.serializers import ModelSerializer

from fanout_parts.stock.models import Happening

NEWEST = 10


class HappeningSerializer(ModelSerializer[Happening]):
    """A row as JSON."""

    class Meta:
        model = Happening
        fields = ["id", "text"]


class HappeningList(ListAPIView[Happening]):
    """The newest rows."""

    permission_classes = [IsAuthenticated]
    serializer_class = HappeningSerializer
    queryset = Happening.objects.order_by("-id")

    def filter_queryset(self, queryset):  # type: ignore[no-untyped-def]  # the stubs' own generics do not fit a slice
        return queryset[:NEWEST]


urlpatterns = [path("happenings/", HappeningList.as_view())]
