"""The page of one device."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.http import Http404, HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl import feed
from fl.access import needs, principal_of
from fl.charts import Chart, chart_of
from fl.context import viewer_of
from fl.exceptions import NotFound
from fl.presence import MIXED, OFFLINE, ONLINE, UNKNOWN, Span, share_online, slots
from fl.queries.device_page import ROUNDS_A_PAGE, History, RoundPart, device_view
from fl.roles import Role
from fl.views.page import PageState, address_of, is_piecemeal, number_in, shown

HOURS = {24: _("24 hours"), 168: _("7 days")}
STRIP_WIDTH = 1000
MOST_SPANS = 400
SPAN_WORDS = {ONLINE: _("Online"), OFFLINE: _("Offline"), MIXED: _("Came and went"), UNKNOWN: _("Nothing told")}


@require_GET
@never_cache
@needs(Role.VIEWER)
def show_device(request: HttpRequest, device_id: int) -> HttpResponseBase:
    """Show a device: `?hours=` says how far back its connections go, `?page=` turns pages of its rounds."""
    now = timezone.now()
    hours = number_in(request.GET.get("hours"))
    hours = hours if hours in HOURS else next(iter(HOURS))
    page = number_in(request.GET.get("page")) or 1
    try:
        found = device_view(principal_of(request), device_id, hours=hours, page=page, now=now)
    except NotFound as error:
        raise Http404(error.message) from error
    state = PageState(
        page="device",
        positions=found.positions,
        viewer=viewer_of(request),
        devices=(found.status,),
        progress=(found.work,) if found.work else (),
        now=now,
    )
    return shown(
        request,
        "devices",
        "devices/device_pieces.html" if is_piecemeal(request) else "devices/device.html",
        state,
        found=found,
        device=found.status,
        row=found.device,
        hours=hours,
        choices=[(value, gettext(label)) for value, label in HOURS.items()],
        strip=_strip(found.history),
        charts=_charts(found.updates),
        told=feed.tell(found.events),
        number=page,
        has_next=page * ROUNDS_A_PAGE < found.total_rounds,
        here=address_of(request),
    )


# ── when it was there ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Bar:
    """A span of the strip; where it is and how long, as SVG takes it, of STRIP_WIDTH in all."""

    kind: str
    word: str
    x: str
    width: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Strip:
    """When a device was online, drawn and in one sentence."""

    bars: list[Bar]
    share: float | None
    """Of the time of which something is known, in [0, 1]."""
    kinds: list[tuple[str, str]]
    """The kinds that occur, with their words."""


def _strip(history: History) -> Strip:
    whole = (history.until - history.since).total_seconds()
    bars = [_bar(span, history.since, whole) for span in slots(history.spans, MOST_SPANS)]
    occurring = {bar.kind for bar in bars}
    kinds = [(kind, gettext(word)) for kind, word in SPAN_WORDS.items() if kind in occurring]
    return Strip(bars=bars, share=share_online(history.spans), kinds=kinds)


def _bar(span: Span, since: datetime, whole: float) -> Bar:
    return Bar(
        kind=span.presence,
        word=gettext(SPAN_WORDS.get(span.presence, span.presence)),
        x=f"{STRIP_WIDTH * (span.start - since).total_seconds() / whole:.2f}",
        width=f"{STRIP_WIDTH * span.seconds / whole:.2f}",
        start=span.start,
        end=span.end,
    )


# ── what it learned ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Drawn:
    """A chart with its name, and its numbers as a person reads them."""

    name: str
    look: str
    chart: Chart
    low: str
    high: str
    last: str


def _charts(updates: Sequence[RoundPart]) -> list[Drawn]:
    runs = [part.run_id for part in updates]
    wanted = (
        (gettext("Local accuracy"), "accuracy", [part.accuracy for part in updates], feed.percent),
        (gettext("Local loss"), "loss", [part.loss for part in updates], feed.loss),
        (gettext("Update norm"), "norm", [part.norm for part in updates], feed.loss),
    )
    drawn = []
    for name, look, values, written in wanted:
        if chart := chart_of(values, runs):
            drawn.append(Drawn(name, look, chart, written(chart.low), written(chart.high), written(chart.last)))
    return drawn
