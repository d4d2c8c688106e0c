"""Every address of the server over HTTP; probes are answered before it, by `realtime.probes`."""

from django.contrib import admin
from django.urls import include, path
from django.views.i18n import set_language
from drf_spectacular.views import SpectacularAPIView

from fl.api.permissions import ByRole
from fl.api.schema import DocsPage
from qflare import views

urlpatterns = [
    path("", include("fl.urls")),
    path("", include("realtime.page_urls")),
    path("language/", set_language, name="set-language"),
    path("admin/", admin.site.urls),
    path("api/v1/", include("fl.api.urls")),
    path("api/v1/", include("realtime.urls")),
    path("api/schema/", SpectacularAPIView.as_view(permission_classes=[ByRole]), name="schema"),
    path("api/docs/", DocsPage.as_view(url_name="schema"), name="docs"),
    path("docs/", views.document_list, name="documents"),
    path("docs/asyncapi/", views.asyncapi, name="asyncapi"),
    path("docs/asyncapi.yaml", views.asyncapi_file, name="asyncapi-file"),
    path("docs/images/<str:name>", views.document_image, name="document-image"),
    path("docs/<slug:slug>/", views.document, name="document"),
]

handler404 = "fl.api.errors.not_found"
handler500 = "fl.api.errors.server_error"
