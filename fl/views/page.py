"""What all pages are made of: the state that their scripts start from, and how requests are read."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language

from edge.protocol.server import DeviceStatus, FlStatusUpdate, TrainingProgress
from fl import feed
from fl.context import Viewer
from fl.exceptions import FlError
from fl.queries.compare import DrawnCurve
from fl.queries.marks import Mark
from fl.queries.positions import Positions
from fl.queries.run_list import RunFigures
from fl.round_lines import RoundLine
from fl.series import EarlierFacts, Series
from fl.texts import texts_of


@dataclass(frozen=True)
class PageState:
    """What a page was rendered from, with the positions of its streams at that moment."""

    page: str
    positions: Positions
    viewer: Viewer
    run_id: int | None = None
    runs: tuple[FlStatusUpdate, ...] = ()
    rounds: tuple[RoundLine, ...] = ()
    progress: tuple[TrainingProgress, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    told: tuple[feed.Told, ...] = ()
    marks: tuple[Mark, ...] = ()
    earlier: Series | None = None
    """Of a very long run: the rounds before `rounds`, a few in each column."""
    earlier_facts: EarlierFacts | None = None
    figures: tuple[RunFigures, ...] = ()
    curves: tuple[DrawnCurve, ...] = ()
    now: datetime = field(default_factory=timezone.now)
    """The server's clock, from which the page counts down."""


def shown(request: HttpRequest, page: str, template: str, state: PageState, **context: Any) -> HttpResponse:
    """Render a page; `page` is its name in the navigation."""
    return render(
        request,
        template,
        {
            "page": page,
            "state": state,
            "words": feed.vocabulary(),
            "texts": texts_of(get_language() or settings.LANGUAGE_CODE),
            "sprite": static("vendor/lucide/sprite.svg"),
            # What the rows of <template> elements are drawn from.
            "nobody": None,
            **context,
        },
    )


def person_at(request: HttpRequest) -> User | None:
    """Return who is signed in; None for everybody else."""
    return request.user if isinstance(request.user, User) else None


def number_in(text: str | None) -> int | None:
    """Read a number of an address; None where it is none, or absurdly large."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def is_piecemeal(request: HttpRequest) -> bool:
    """Say whether a page's script asks for the pieces of it that have changed, not for a person."""
    return "pieces" in request.GET


def address_of(request: HttpRequest) -> str:
    """Return the address of a page as a person sees it, to come back to."""
    query = request.GET.copy()
    query.pop("pieces", None)
    return f"{request.path}?{query.urlencode()}" if query else request.path


def sentence_of(error: FlError) -> str:
    """Say what and why, and what to do, in one line for a notice."""
    what = error.message[:1].upper() + error.message[1:]
    return f"{what}. {error.action[:1].upper()}{error.action[1:]}." if error.action else f"{what}."


def way_back(request: HttpRequest, otherwise: str) -> str:
    """Return where a form wants its sender to be led, if that is a page of this server."""
    wanted = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and safe else otherwise
