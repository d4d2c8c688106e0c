"""Addresses of pages and figures that are about connections, at the root; `realtime.urls` has those of the API."""

from django.urls import path

from realtime.probes import metrics
from realtime.views import health

urlpatterns = [
    path("health/", health, name="health-page"),
    path("metrics", metrics, name="metrics"),
]
