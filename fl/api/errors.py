"""Every error under `/api/` in one shape, and the one map from what was raised to an HTTP status.

The body is `edge.protocol.http.ProblemBody`: {"error": {"code", "message", "action"}}. 400 means that the request could
not be read, 422 that it was read and asks for something that cannot be.
"""

import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import loader
from django.views import defaults
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from edge.protocol.http import Problem, ProblemBody
from fl.exceptions import (
    Conflict,
    EncodedBody,
    FlError,
    InTrash,
    Invalid,
    LengthRequired,
    NotAllowed,
    NotFound,
    TokenRefused,
    TooLarge,
    Unauthenticated,
    UpdateRefused,
)
from fl.outages import RETRY_SECONDS, is_outage

STATUS: dict[type[FlError], int] = {
    FlError: 422,
    NotAllowed: 403,
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    TokenRefused: 403,
    Unauthenticated: 401,
    UpdateRefused: 422,
    TooLarge: 413,
    LengthRequired: 411,
    EncodedBody: 415,
}
"""The nearest class above an error's own decides."""


SERVER_ERROR = ProblemBody(
    error=Problem(
        code="server_error",
        message="the server failed at this request",
        action="try again; if it stays so, the server's log says why",
    )
)
"""What nobody expected; the log has it whole."""
DATABASE_AWAY = ProblemBody(
    error=Problem(
        code="database_away",
        message="the server's database is away, or too busy to answer this",
        action=f"try again in {RETRY_SECONDS} s; a command with an Idempotency-Key is never done twice",
    )
)

_ACTIONS = {
    "not_authenticated": "sign in, or send a device's token",
    "method_not_allowed": "see /api/docs/ for what this address takes",
    "parse_error": "send a JSON object as application/json",
    "unsupported_media_type": "send a JSON object as application/json",
    "throttled": "wait as long as Retry-After says",
}


def status_of(error: FlError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_of(error: FlError) -> ProblemBody:
    """Return the body that tells an error."""
    return ProblemBody(error=Problem(code=error.reason_code, message=error.message, action=error.action))


def failure_of(error: BaseException | None) -> tuple[int, ProblemBody, Mapping[str, str]]:
    """Return status, body and headers for what is not the asker's fault: an outage, or what nobody expected."""
    if is_outage(error):
        return HTTPStatus.SERVICE_UNAVAILABLE, DATABASE_AWAY, {"Retry-After": str(RETRY_SECONDS)}
    return HTTPStatus.INTERNAL_SERVER_ERROR, SERVER_ERROR, {}


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn what a view raised into its answer; None for what nobody expected, which is logged whole and answers 500."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied(*error.args)
    if isinstance(error, FlError):
        response = Response(msgspec.to_builtins(problem_of(error)), status=status_of(error))
    elif isinstance(error, exceptions.APIException):
        response = _answer_of_framework(error)
    elif is_outage(error):
        code, body, headers = failure_of(error)
        response = Response(msgspec.to_builtins(body), status=code, headers=dict(headers))
    else:
        return None
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = context["view"].get_authenticate_header(context["request"])
    set_rollback()
    return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that does not exist: in the API's shape under `/api/`, elsewhere by a page."""
    if not request.path.startswith("/api/"):
        # Who could see a run is told where it is, whichever of its pages was asked for.
        if isinstance(exception.__cause__, InTrash):
            page = loader.render_to_string("runs/in_trash.html", {"gone": exception.__cause__}, request)
            return HttpResponse(page, status=HTTPStatus.NOT_FOUND)
        return defaults.page_not_found(request, exception)
    action = "see /api/docs/ for the addresses; each ends with a slash"
    return JsonResponse(_body("not_found", "there is nothing at this address", action), status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what nobody caught, in the API's shape under `/api/`, elsewhere by a page; the log has it whole."""
    code, body, headers = failure_of(sys.exception())
    if request.path.startswith("/api/"):
        return JsonResponse(msgspec.to_builtins(body), status=code, headers=headers)
    if code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return defaults.server_error(request)
    # Without what a request brings to a page: who is signed in would be asked of the database.
    return HttpResponse(loader.render_to_string("503.html", {"seconds": RETRY_SECONDS}), status=code, headers=headers)


def _answer_of_framework(error: exceptions.APIException) -> Response:
    if isinstance(error, exceptions.ValidationError):
        body = _body("invalid", "; ".join(_faults(error.detail)), "correct the values named")
        return Response(body, status=status.HTTP_422_UNPROCESSABLE_ENTITY)
    code = str(error.get_codes()) if isinstance(error.detail, str) else error.default_code
    # `wait` is that of Throttled; nothing else has one.
    wait = getattr(error, "wait", None)
    headers = {} if wait is None else {"Retry-After": str(int(wait))}
    body = _body(code, "; ".join(_faults(error.detail)), _ACTIONS.get(code, ""))
    return Response(body, status=error.status_code, headers=headers)


def _faults(detail: Any, field: str = "") -> Iterator[str]:
    """List what is wrong, each with its field: `strategy_config.mu: must be at least 0`."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            below = field if name == "non_field_errors" else f"{field}.{name}".lstrip(".")
            yield from _faults(inner, below)
    elif isinstance(detail, list):
        for inner in detail:
            yield from _faults(inner, field)
    else:
        yield f"{field}: {detail}" if field else str(detail)


def _body(code: str, message: str, action: str) -> Any:
    return msgspec.to_builtins(ProblemBody(error=Problem(code=code, message=message, action=action)))
