"""The server's addresses, and two views that record an event: one of each kind."""

from asgiref.sync import sync_to_async
from django.http import HttpResponse
from django.urls import path

from qflare.urls import handler404, handler500, urlpatterns
from tests.scenarios.acts_publishing import record_one

__all__ = ["handler404", "handler500", "urlpatterns"]


def sync_view(request, title):
    record_one(title)
    return HttpResponse()


async def async_view(request, title):
    await sync_to_async(record_one)(title)
    return HttpResponse()


urlpatterns = [*urlpatterns, path("sync/<title>/", sync_view), path("async/<title>/", async_view)]
