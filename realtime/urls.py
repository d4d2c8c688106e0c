"""Addresses below `/api/v1/` that are about connections."""

from django.urls import path

from realtime.api import BroadcastsView, ConnectionsView, HealthView

urlpatterns = [
    path("health/", HealthView.as_view(), name="health"),
    path("connections/", ConnectionsView.as_view(), name="connections"),
    path("broadcasts/", BroadcastsView.as_view(), name="broadcasts"),
]
