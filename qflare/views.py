"""The pages of the documents."""

from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.http import content_disposition_header
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.queries.positions import positions_of
from fl.roles import Role
from fl.views.page import PageState, shown
from qflare import documents


@require_GET
@never_cache
@needs(Role.VIEWER)
def document_list(request: HttpRequest) -> HttpResponseBase:
    """List the documents."""
    return _shown(request, "docs/list.html", asyncapi=_asyncapi_file().is_file())


@require_GET
@never_cache
@needs(Role.VIEWER)
def document(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Show a document."""
    found = documents.read(slug)
    if found is None:
        raise Http404(f"there is no document {slug}")
    return _shown(request, "docs/document.html", document=found)


@require_GET
@never_cache
@needs(Role.VIEWER)
def asyncapi(request: HttpRequest) -> HttpResponseBase:
    """Show the protocol's description for programs."""
    return _shown(request, "docs/asyncapi.html", text=_asyncapi_text())


@require_GET
@never_cache
@needs(Role.VIEWER)
def asyncapi_file(request: HttpRequest) -> HttpResponseBase:
    """Give it as a file."""
    response = HttpResponse(_asyncapi_text(), content_type="application/yaml; charset=utf-8")
    response.headers["Content-Disposition"] = content_disposition_header(True, "asyncapi.yaml") or ""
    return response


@require_GET
@cache_control(private=True, max_age=300)
@needs(Role.VIEWER)
def document_image(request: HttpRequest, name: str) -> HttpResponseBase:
    """Show a picture of the documents."""
    found = documents.image(name)
    if found is None:
        raise Http404(f"there is no picture {name}")
    content, content_type = found
    return HttpResponse(content, content_type=content_type)


def _shown(request: HttpRequest, template: str, **context: object) -> HttpResponse:
    state = PageState(page="documents", positions=positions_of(principal_of(request), []), viewer=viewer_of(request))
    pages = [page for page in map(documents.read, documents.slugs()) if page is not None]
    return shown(request, "documents", template, state, pages=pages, **context)


def _asyncapi_file() -> Path:
    return Path(settings.BASE_DIR) / documents.ASYNCAPI


def _asyncapi_text() -> str:
    try:
        return _asyncapi_file().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Http404("the description is not in this checkout") from error
