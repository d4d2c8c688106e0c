"""Every address of the server over HTTP."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from fl.api.permissions import ByRole
from fl.api.schema import DocsPage

urlpatterns = [
    path("", include("fl.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("fl.api.urls")),
    path("api/v1/", include("realtime.urls")),
    path("api/schema/", SpectacularAPIView.as_view(permission_classes=[ByRole]), name="schema"),
    path("api/docs/", DocsPage.as_view(url_name="schema"), name="docs"),
]

handler404 = "fl.api.errors.not_found"
handler500 = "fl.api.errors.server_error"
