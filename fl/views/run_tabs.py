"""The tabs of a run's page: who took part, its configuration, its models, its events; `run_rounds` has the rounds."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from edge.protocol.server import TrainingProgress
from fl import run_plans
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.exceptions import NotFound
from fl.queries import participation as parts_queries
from fl.queries import run_tabs as queries
from fl.queries.run_tabs import Head
from fl.roles import Role
from fl.round_lines import RoundLine
from fl.views.heat_map import HEAD, ROW, STEP, heat_map
from fl.views.page import PageState, number_in, shown

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_SEARCH = 100
DEVICE_COLUMNS = (
    ("name", _("Device")),
    ("selected", _("Selected")),
    ("accepted", _("Received")),
    ("late", _("Late")),
    ("rejected", _("Rejected")),
    ("failed", _("Failed")),
    ("since", _("Rounds since last")),
    ("examples", _("Examples counted")),
    ("median", _("Median time")),
)
"""Keys of `SORTS` and what stands above their columns."""


@require_GET
@never_cache
@needs(Role.VIEWER)
def devices(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Show who took part: `?from=` is the first round shown, `?sort=` a column, `-` before it for the largest first."""
    sort, descending = _sort_in(request.GET.get("sort", ""))
    first = number_in(request.GET.get("from"))
    number = page_in(request)
    found = or_404(
        parts_queries.participation,
        principal_of(request),
        run_id,
        sort=sort,
        descending=descending,
        first=first,
        offset=(number - 1) * parts_queries.DEVICES_A_PAGE,
    )
    return shown_tab(
        request,
        "devices",
        "runs/devices.html",
        found.head,
        found=found,
        is_newest=first is None,
        map=heat_map(found),
        columns=[(key, gettext(title)) for key, title in DEVICE_COLUMNS],
        sort=sort,
        descending=descending,
        older=max(1, found.first - parts_queries.COLUMNS) if found.first > 1 else None,
        newer=found.last + 1 if found.last < found.newest else None,
        step=STEP,
        row=ROW,
        top=HEAD,
        number=number,
        has_next=number * parts_queries.DEVICES_A_PAGE < found.total,
    )


def _sort_in(text: str) -> tuple[str, bool]:
    name = text.removeprefix("-")
    return (name, text.startswith("-")) if name in parts_queries.SORTS else ("name", False)


@require_GET
@never_cache
@needs(Role.VIEWER)
def config(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Show all settings of a run, the software that took part, and what asks for an equal run."""
    found = or_404(queries.configuration, principal_of(request), run_id)
    run = found.head.run
    command = run_plans.as_curl(
        run,
        request.build_absolute_uri("/").rstrip("/"),
        session_cookie=settings.SESSION_COOKIE_NAME,
        csrf_cookie=settings.CSRF_COOKIE_NAME,
    )
    return shown_tab(
        request,
        "config",
        "runs/config.html",
        found.head,
        found=found,
        settings=run_plans.settings_of(run),
        texts=[
            ("toml", "TOML", run_plans.as_toml(run)),
            ("cli", "CLI", command),
            ("json", "JSON", run_plans.as_json(run)),
        ],
        server_version=settings.QFLARE_VERSION,
    )


@require_GET
@never_cache
@needs(Role.VIEWER)
def models(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """List a run's published versions, newest first; `?page=` turns pages."""
    number = page_in(request)
    offset = (number - 1) * queries.MODELS_A_PAGE
    found = or_404(queries.model_page, principal_of(request), run_id, offset=offset)
    return shown_tab(
        request,
        "models",
        "runs/models.html",
        found.head,
        found=found,
        number=number,
        has_next=offset + queries.MODELS_A_PAGE < found.total,
    )


@require_GET
@never_cache
@needs(Role.VIEWER)
def events(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Tell a run's events, newest first; `?severity=`, `?q=` and `?device=` filter, `?before=` goes back."""
    before = number_in(request.GET.get("before"))
    wanted = _event_filter_in(request)
    found = or_404(queries.event_page, principal_of(request), run_id, wanted, before=before)
    return shown_tab(
        request, "events", "runs/events.html", found.head, found=found, wanted=wanted, is_newest=before is None
    )


def _event_filter_in(request: HttpRequest) -> queries.EventFilter:
    severity = request.GET.get("severity", "")
    device = request.GET.get("device", "")
    return queries.EventFilter(
        severity=severity if severity in queries.SEVERITIES else "",
        text=request.GET.get("q", "").strip()[:LONGEST_SEARCH],
        device=queries.ALL_DEVICES if device == queries.ALL_DEVICES else number_in(device),
    )


# ── what all tabs do alike ────────────────────────────────────────────────────────────────────────────────────────────


def shown_tab(
    request: HttpRequest,
    tab: str,
    template: str,
    head: Head,
    *,
    rounds: tuple[RoundLine, ...] = (),
    progress: tuple[TrainingProgress, ...] = (),
    **context: Any,
) -> HttpResponse:
    """Render a tab; `tab` is its name in the bar of tabs."""
    state = PageState(
        page=f"run-{tab}",
        positions=head.positions,
        viewer=viewer_of(request),
        run_id=head.run.pk,
        runs=(head.status,),
        rounds=rounds,
        progress=progress,
    )
    return shown(request, "run", template, state, tab=tab, run=head.run, status=head.status, **context)


def or_404(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what is read; a page that is not there where it, or what it is part of, is not."""
    try:
        return read(*args, **kwargs)
    except NotFound as error:
        raise Http404(error.message) from error


def page_in(request: HttpRequest) -> int:
    """Return the page that an address asks for, from 1 on."""
    return max(1, number_in(request.GET.get("page")) or 1)
