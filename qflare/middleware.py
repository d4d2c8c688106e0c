"""What every answer of the server carries, in which language it speaks, and where every request comes from."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.utils.cache import patch_vary_headers

from fl import audit
from fl.addresses import client_address
from fl.models.audit import Door

PAGES = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
DOORS = {"/api/": Door.REST, "/admin/": Door.ADMIN}
"""How the addresses of doors begin; all others are pages."""


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Let pages load scripts, styles and data from this server alone; nothing inline, nothing evaluated."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", PAGES)
        return response

    return answer


def language_of_answers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Speak to people in the language that they chose, else in that of their browser, and to programs in English.

    Unlike Django's own, it leaves no language behind in the thread: what is made after the answer, such as the lines of
    a file, is English for everybody.
    """

    def answer(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/api/"):
            with translation.override(settings.LANGUAGE_CODE):
                return get_response(request)
        language = translation.get_language_from_request(request)
        with translation.override(language):
            request.LANGUAGE_CODE = language
            response = get_response(request)
        patch_vary_headers(response, ("Accept-Language", "Cookie"))
        response.headers.setdefault("Content-Language", language)
        return response

    return answer


def origin_of_acts(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Let what people do by a request be noted with its door and the address that it comes from (see `fl.audit`)."""

    def answer(request: HttpRequest) -> HttpResponse:
        door = next((door for start, door in DOORS.items() if request.path_info.startswith(start)), Door.PAGE)
        said = request.META.get("HTTP_X_FORWARDED_FOR", "")
        address = client_address(request.META.get("REMOTE_ADDR") or "", said, settings.QFLARE_TRUSTED_PROXIES)
        with audit.coming_by(door, address):
            return get_response(request)

    return answer
