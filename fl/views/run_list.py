"""The list of runs: which ones, in which order, and which of them are ticked stand in its address."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.lifecycle import RunState
from fl.queries.compare import MOST
from fl.queries.run_list import NEWEST, RunList, Wishes, run_list, run_number
from fl.roles import Role
from fl.views.page import PageState, number_in, shown

MOST_TICKED = 100
"""More than can be compared: many can be moved to the trash at once."""
FILTERS = ("state", "task", "strategy", "tag", "text")


@dataclass(frozen=True)
class Column:
    """A column's head: the link sorts by it, and the other way round where it is sorted by it already."""

    name: str
    label: str
    is_number: bool = False
    falls_first: bool = False
    """What is looked for stands at the high end."""


COLUMNS = (
    Column("name", _("Run")),
    Column("state", _("State")),
    Column("task", _("Task")),
    Column("strategy", _("Strategy")),
    Column("rounds", _("Rounds"), is_number=True, falls_first=True),
    Column("devices", _("Devices"), is_number=True, falls_first=True),
    Column("best", _("Best"), is_number=True, falls_first=True),
    Column("last", _("Last"), is_number=True, falls_first=True),
    Column("duration", _("Duration"), is_number=True, falls_first=True),
    Column("started_by", _("Started by")),
    Column("created", _("Created"), falls_first=True),
)


@require_GET
@never_cache
@needs(Role.VIEWER)
def index(request: HttpRequest) -> HttpResponseBase:
    """List the runs: `?state=`, `task`, `strategy`, `tag` and `text` filter, `sort` orders, `page` turns pages."""
    now, viewer = timezone.now(), viewer_of(request)
    ticked = _ticked(request)
    found = run_list(principal_of(request), _wishes(request, names_shown=viewer.signed_in), now=now, ticked=ticked)
    wishes = found.wishes
    state = PageState(
        page="runs",
        positions=found.positions,
        viewer=viewer,
        runs=tuple(row.status for row in found.rows),
        figures=tuple(row.figures for row in found.rows),
        now=now,
    )
    columns = [column for column in COLUMNS if column.name != "started_by" or viewer.signed_in]
    return shown(
        request,
        "runs",
        "runs/list.html",
        state,
        found=found,
        wishes=wishes,
        rows=[(row, row.seconds(now)) for row in found.rows],
        heads=[_head(column, wishes, ticked) for column in columns],
        states=list(RunState),
        ticked=ticked,
        most=MOST,
        newer=_address(wishes, ticked, page=wishes.page - 1) if wishes.page > 1 else "",
        older=_address(wishes, ticked, page=wishes.page + 1) if wishes.page < found.pages else "",
        all_states=_address(wishes, ticked, state="", page=1),
        by_state=[(name, _address(wishes, ticked, state=name, page=1)) for name in RunState],
        by_tag=dict(_tag_addresses(found, ticked)),
        unfiltered=_address(Wishes(sort=wishes.sort), ticked),
        kept={"state": wishes.state, "sort": "" if wishes.sort == NEWEST else wishes.sort},
    )


def _wishes(request: HttpRequest, *, names_shown: bool) -> Wishes:
    """Read what is wished for; who does not see who started runs cannot have them in that order."""
    sort = request.GET.get("sort", NEWEST)
    if sort.removeprefix("-") == "started_by" and not names_shown:
        sort = NEWEST
    texts = {name: request.GET.get(name, "") for name in FILTERS}
    return Wishes(**texts, sort=sort, page=number_in(request.GET.get("page")) or 1)


def _ticked(request: HttpRequest) -> list[int]:
    numbers = (run_number(text) for text in request.GET.getlist("run"))
    return list(dict.fromkeys(number for number in numbers if number is not None))[:MOST_TICKED]


def _address(wishes: Wishes, ticked: Iterable[int], **changes: str | int) -> str:
    """Return the query of the list that is shown, with some of it changed; what is as always is left out."""
    usual = asdict(Wishes())
    values = {**asdict(wishes), **changes}
    pairs = [(name, value) for name, value in values.items() if value != usual[name]]
    return "?" + urlencode([*pairs, *(("run", number) for number in ticked)])


def _head(column: Column, wishes: Wishes, ticked: Iterable[int]) -> dict[str, str | bool]:
    rising, falling = column.name, f"-{column.name}"
    first, second = (falling, rising) if column.falls_first else (rising, falling)
    return {
        "name": column.name,
        "label": gettext(column.label),
        "is_number": column.is_number,
        "order": {rising: "ascending", falling: "descending"}.get(wishes.sort, ""),
        "address": _address(wishes, ticked, sort=second if wishes.sort == first else first, page=1),
    }


def _tag_addresses(found: RunList, ticked: Iterable[int]) -> Iterator[tuple[str, str]]:
    for row in found.rows:
        for tag in row.run.tags:
            yield tag, _address(found.wishes, ticked, tag=tag, page=1)
