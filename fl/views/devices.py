"""The list of devices, and commands to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from fl import devices, feed
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.exceptions import Conflict, Invalid
from fl.feed import Word
from fl.models import Device
from fl.queries.device_list import DeviceLine, Show, Sort, Wish, device_list
from fl.roles import Role
from fl.views.page import PageState, address_of, is_piecemeal, number_in, person_at, sentence_of, shown, way_back

MOSAIC_FROM = 33
MOSAIC_MOST = 1000
MOSAIC_COLUMNS = 60
LONGEST_TEXT = 100
"""Of what is looked for."""


@require_GET
@never_cache
@needs(Role.VIEWER)
def list_devices(request: HttpRequest) -> HttpResponseBase:
    """List the devices that `?show=`, `?q=` and `?tag=` choose, by `?sort=`; `?page=` turns pages."""
    wish = wish_in(request)
    found = device_list(principal_of(request), wish, timezone.now())
    state = PageState(
        page="devices",
        positions=found.positions,
        viewer=viewer_of(request),
        devices=tuple(found.devices),
        progress=tuple(found.work),
    )
    template = "devices/list_pieces.html" if is_piecemeal(request) else "devices/list.html"
    return shown(
        request,
        "devices",
        template,
        state,
        found=found,
        wish=wish,
        tabs=[(show, gettext(label), found.counts[show]) for show, label in _TABS.items()],
        columns=_columns(request, wish),
        mosaic=_mosaic(found.matching),
        here=address_of(request),
    )


def wish_in(request: HttpRequest) -> Wish:
    """Read what is asked of the list; what is unknown counts as not said."""
    asked = request.GET
    sort = asked.get("sort", "")
    return Wish(
        show=Show(asked.get("show", "")) if asked.get("show", "") in set(Show) else Show.ALL,
        text=asked.get("q", "").strip()[:LONGEST_TEXT],
        tag=asked.get("tag", "")[:LONGEST_TEXT],
        sort=Sort(sort.removeprefix("-")) if sort.removeprefix("-") in set(Sort) else Sort.NAME,
        descending=sort.startswith("-") and sort[1:] in set(Sort),
        page=number_in(asked.get("page")) or 1,
    )


# ── what the page draws ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Column:
    """The head of a column: where its link leads, and how the table is ordered by it now."""

    label: str
    look: str = ""
    sort: str = ""
    """What the link asks for; empty where one cannot sort by it."""
    order: str = ""
    """For `aria-sort`: ascending, descending, or empty."""


_TABS = {
    Show.ALL: _("All"),
    Show.ATTENTION: _("Attention"),
    Show.TRAINING: _("Training"),
    Show.ONLINE: _("Online"),
    Show.OFFLINE: _("Offline"),
    Show.PENDING: _("Pending"),
    Show.REVOKED: _("Revoked"),
}
_COLUMNS: tuple[tuple[str, Sort | None, str], ...] = (
    (_("Device"), Sort.NAME, ""),
    (_("State"), Sort.STATE, ""),
    (_("Work"), None, ""),
    (_("Tasks and examples"), Sort.EXAMPLES, ""),
    (_("Rounds"), Sort.ROUNDS, "number"),
    (_("Local accuracy"), None, "number"),
    (_("Last heard"), Sort.HEARD, ""),
)
_LARGEST_FIRST = frozenset({Sort.HEARD, Sort.EXAMPLES, Sort.ROUNDS})


def _columns(request: HttpRequest, wish: Wish) -> list[Column]:
    viewer = viewer_of(request)
    columns = [_column(gettext(label), sort, look, wish) for label, sort, look in _COLUMNS]
    columns += [Column(gettext("Key"))] if viewer.signed_in else []
    return columns + ([Column(gettext("Actions"))] if viewer.operates else [])


def _column(label: str, sort: Sort | None, look: str, wish: Wish) -> Column:
    if sort is None:
        return Column(label, look)
    if wish.sort is not sort:
        return Column(label, look, f"-{sort}" if sort in _LARGEST_FIRST else sort)
    order = "descending" if wish.descending else "ascending"
    return Column(label, look, sort if wish.descending else f"-{sort}", order)


@dataclass(frozen=True)
class Mosaic:
    """All devices that match, each a square, and in words how many there are of each kind."""

    squares: SafeString
    width: int
    height: int
    kinds: list[tuple[Word, int]]
    left_out: int


# Not a loop of the template, which would take longer for this than for all else on the page.
_SQUARE = (
    '<rect class="square tone-{}" data-square="{}" x="{}" y="{}" width="12" height="12" rx="3">'
    "<title>{}: {}</title></rect>"
)


def _mosaic(lines: list[DeviceLine]) -> Mosaic | None:
    if len(lines) < MOSAIC_FROM:
        return None
    drawn = lines[:MOSAIC_MOST]
    keys = [line.key for line in lines]
    return Mosaic(
        squares=format_html_join("", _SQUARE, (_square(place, line) for place, line in enumerate(drawn))),
        width=14 * MOSAIC_COLUMNS - 2,
        height=14 * -(-len(drawn) // MOSAIC_COLUMNS) - 2,
        kinds=[(word, keys.count(key)) for key, word in feed.DEVICE_WORDS.items() if key in keys],
        left_out=len(lines) - len(drawn),
    )


def _square(place: int, line: DeviceLine) -> tuple[str, int, int, int, str, str]:
    word = feed.DEVICE_WORDS[line.key]
    row, column = divmod(place, MOSAIC_COLUMNS)
    return word.tone, line.status.device_id, 14 * column, 14 * row, line.status.name, word.word


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@require_POST
@needs(Role.OPERATOR)
def command_device(request: HttpRequest, device_id: int, command: str) -> HttpResponseBase:
    """Approve, suspend, reinstate, rename or tag a device; only admins revoke one."""
    if command == "revoke":
        return _revoke_device(request, device_id)
    posted = request.POST
    common: dict[str, Any] = {"now": timezone.now(), "by": person_at(request)}
    use_cases: dict[str, Callable[[Device], Device]] = {
        "approve": lambda device: devices.approve(device=device, **common),
        "suspend": lambda device: devices.suspend(device=device, reason=_reason_in(request), **common),
        "reinstate": lambda device: devices.reinstate(device=device, **common),
        "rename": lambda device: devices.rename_device(device=device, name=posted.get("name", ""), **common),
        "tag": lambda device: devices.tag_device(device=device, tags=posted.get("tags", "").split(","), **common),
    }
    if command not in use_cases:
        raise Http404(f"there is no command {command}")
    return _do_to_device(request, device_id, use_cases[command])


@needs(Role.ADMIN)
def _revoke_device(request: HttpRequest, device_id: int) -> HttpResponseBase:
    now, by, reason = timezone.now(), person_at(request), _reason_in(request)
    return _do_to_device(
        request, device_id, lambda device: devices.revoke(device=device, reason=reason, now=now, by=by)
    )


def _reason_in(request: HttpRequest) -> str:
    # PostgreSQL takes no text with a NUL in it.
    return request.POST.get("reason", "").replace("\0", "").strip()


def _do_to_device(request: HttpRequest, device_id: int, use_case: Callable[[Device], Device]) -> HttpResponse:
    try:
        use_case(get_object_or_404(Device, pk=device_id))
    except (Conflict, Invalid) as error:
        messages.error(request, sentence_of(error))
    return redirect(way_back(request, reverse("device-list")))
