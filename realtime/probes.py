"""For whoever watches the server: does this process answer, may it be given work, and what does it count?

    /healthz   200 "ok" if this process answers; nothing else is asked
    /readyz    200 "ok" when database, migrations and channel layer are as they must be, else 503 and what is not
    /metrics   figures in Prometheus' text format, for those with QFLARE_METRICS_TOKEN and for signed-in viewers

The first two are answered before all else that a request passes: who asks comes by an address, not by a name of
QFLARE_ALLOWED_HOSTS, and is nobody in particular. The first one is answered on the loop (`qflare.asgi`), since all
threads may wait for a database that is away.
"""

import secrets
from collections.abc import Callable
from functools import cache

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from fl.access import principal_of
from fl.roles import Role
from realtime import health
from realtime.prometheus import CONTENT_TYPE, exposition

ALIVE, READY = "/healthz", "/readyz"
PLAIN = "text/plain; charset=utf-8"
BEARER = "Bearer "


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that this process answers."""
    return HttpResponse("ok\n", content_type=PLAIN)


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Say whether this process may be given work, and if not, why."""
    missing = what_is_missing()
    return HttpResponse("\n".join(missing or ["ok"]) + "\n", content_type=PLAIN, status=503 if missing else 200)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Give the figures to those who may have them."""
    if has_token(request) or (request.user.is_authenticated and principal_of(request).role >= Role.VIEWER):
        return HttpResponse(exposition(timezone.now()), content_type=CONTENT_TYPE)
    if request.user.is_authenticated:
        return HttpResponse("this needs the role viewer\n", content_type=PLAIN, status=403)
    why = "send the token of QFLARE_METRICS_TOKEN as a bearer, or sign in\n"
    return HttpResponse(why, content_type=PLAIN, status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})


def answer_ready(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer `/readyz` before all else that is in its thread, and hand on every other request."""

    def answer(request: HttpRequest) -> HttpResponse:
        return readyz(request) if request.path_info == READY else get_response(request)

    return answer


def what_is_missing() -> list[str]:
    """Name what is not as it must be, each with what it is; nothing where all is well."""
    try:
        unapplied = _unapplied_migrations()
    except (DatabaseError, InterfaceError):
        return ["database: away"]
    missing = [f"migrations: not applied: {', '.join(unapplied)}"] if unapplied else []
    if health.layer() == "away":
        missing.append("channel layer: away")
    return missing


def has_token(request: HttpRequest) -> bool:
    """Say whether a request brings the token of QFLARE_METRICS_TOKEN; none does where none is set."""
    said = request.headers.get("Authorization", "")
    token: str = settings.QFLARE_METRICS_TOKEN
    if not token or not said.startswith(BEARER):
        return False
    return secrets.compare_digest(said.removeprefix(BEARER).encode(), token.encode())


def _unapplied_migrations() -> list[str]:
    """Return the newest migrations of the code that the database has not had, as `app.name`."""
    applied = MigrationRecorder(connection).applied_migrations()
    return [f"{app}.{name}" for app, name in _newest_migrations() if (app, name) not in applied]


@cache
def _newest_migrations() -> list[tuple[str, str]]:
    # Of the files alone: which there are does not change while the process lives.
    return sorted(MigrationLoader(None, ignore_no_migrations=True).graph.leaf_nodes())
