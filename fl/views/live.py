"""The overview and the page of a run: one run with all around it, live."""

from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from edge.protocol.server import FlStatusUpdate
from fl import feed
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.demo import TASK as DEMO_TASK
from fl.demo import devices_ready_for_demo
from fl.exceptions import NotFound
from fl.queries import runs as queries
from fl.queries.runs import Overview, RunView
from fl.roles import Role
from fl.round_lines import RoundLine
from fl.series import MOST_POINTS, EarlierFacts, Series, earlier_facts, is_measured_on_devices, series_of
from fl.views.page import PageState, number_in, shown

FEED_LINES = 50
TABLE_ROUNDS = 40
"""How many of the newest rounds a run's table shows."""
COLUMNS = 480
"""How many columns a curve has at most for the rounds that are not told one by one."""


@require_GET
@never_cache
@needs(Role.VIEWER)
def overview(request: HttpRequest) -> HttpResponseBase:
    """Show the newest open run, or the one that `?run=` names; without any run, a guide."""
    return _run_page(request, "overview", number_in(request.GET.get("run")))


@require_GET
@never_cache
@needs(Role.VIEWER)
def run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Show one run."""
    return _run_page(request, "run", run_id)


def _run_page(request: HttpRequest, page: str, run_id: int | None) -> HttpResponse:
    try:
        found = queries.overview(principal_of(request), run_id)
    except NotFound as error:
        raise Http404(error.message) from error
    told = feed.tell(found.events)
    view = found.view
    newest, earlier, facts = _split(view) if view else ((), None, None)
    state = PageState(
        page=page,
        positions=found.positions,
        viewer=viewer_of(request),
        run_id=view.run.pk if view else None,
        runs=(view.status,) if view else (),
        rounds=newest,
        earlier=earlier,
        earlier_facts=facts,
        marks=tuple(view.marks) if view else (),
        progress=tuple(view.progress) if view else (),
        devices=tuple(found.devices),
        told=tuple(told[:FEED_LINES]),
    )
    online = sum(device.presence == "online" for device in found.devices)
    severity = request.GET.get("severity", "")
    tones = feed.SEVERITIES.get(severity)
    shown_lines = [line for line in told if not tones or line.tone in tones][:FEED_LINES]
    context: dict[str, Any] = {"found": found, "told": shown_lines, "severity": severity, "online": online}
    if view is None:
        return shown(request, page, "guide.html", state, **context, **_guide(request, found))
    return shown(request, page, "run.html", state, **context, **_view_context(view))


def _split(view: RunView) -> tuple[tuple[RoundLine, ...], Series | None, EarlierFacts | None]:
    """Return the newest rounds for the scripts one by one; those before them, if any, in columns, and facts of them."""
    before, newest = view.rounds[:-MOST_POINTS], view.rounds[-MOST_POINTS:]
    if not before:
        return tuple(newest), None, None
    columns = series_of(before, started_at=view.run.started_at, most=COLUMNS)
    return tuple(newest), columns, earlier_facts(before, median_seconds=queries.median_seconds(view.rounds))


def _view_context(view: RunView) -> dict[str, Any]:
    shown_rounds = view.rounds[-TABLE_ROUNDS:][::-1]
    status = view.status
    return {
        "view": view,
        "run": view.run,
        "status": status,
        "task": status.task,
        "can": dict.fromkeys(status.actions, True),
        "quorum": QuorumBar.of(status),
        "table_rounds": shown_rounds,
        "hidden_rounds": len(view.rounds) - len(shown_rounds),
        "median_seconds": queries.median_seconds(view.rounds),
        "measured_on_devices": is_measured_on_devices(view.rounds),
    }


@dataclass(frozen=True)
class QuorumBar:
    """How much of the bar of updates is filled and where the quorum's mark stands, in per cent of its width.

    As SVG takes them, which no language changes.
    """

    received: str
    mark: str

    @classmethod
    def of(cls, status: FlStatusUpdate) -> "QuorumBar":
        whole = max(status.selected or status.cohort_size, status.quorum, 1)
        return cls(received=str(100 * status.updates_received / whole), mark=str(100 * status.quorum / whole))


def _guide(request: HttpRequest, found: Overview) -> dict[str, Any]:
    return {
        "task": DEMO_TASK,
        "pending": [device for device in found.devices if device.state == "pending"],
        "ready_for_demo": devices_ready_for_demo() if viewer_of(request).operates else 0,
        "address": request.build_absolute_uri("/").rstrip("/"),
    }
