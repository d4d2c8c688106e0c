"""The audit log, for admins alone: who did what, when and from where; to filter, and to take away as a file."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from django.http import HttpRequest, HttpResponseBase, QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs
from fl.context import viewer_of
from fl.models.audit import Act
from fl.queries import audit as queries
from fl.queries.audit import Wanted
from fl.roles import Role
from fl.views.export import StreamedText, csv_lines, json_lines
from fl.views.page import PageState, number_in, shown

ENTRIES_A_PAGE = 50
LONGEST = 200
"""How much of a text is looked for."""
DAY = timedelta(days=1)
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
"""What it can be taken away as."""


@require_GET
@never_cache
@needs(Role.ADMIN)
def audit_list(request: HttpRequest) -> HttpResponseBase:
    """List what people did, newest first.

    `?person=`, `?act=`, `?subject=`, `?from=` and `?to=` (days of UTC, both included) filter, `?page=` turns pages, and
    `?format=csv` or `json` sends all of what is filtered.
    """
    filters = filters_in(request.GET)
    wanted = wanted_by(filters)
    form = request.GET.get("format")
    if form in MEDIA_TYPES:
        filename = f"qflare-audit-{timezone.now().astimezone(UTC):%Y-%m-%d}.{form}"
        lines = as_csv(wanted) if form == "csv" else json_lines(queries.exported(wanted))
        return StreamedText(lines, content_type=MEDIA_TYPES[form], filename=filename)
    number = max(1, number_in(request.GET.get("page")) or 1)
    offset = (number - 1) * ENTRIES_A_PAGE
    found = queries.audit_page(wanted, offset=offset, limit=ENTRIES_A_PAGE)
    return shown(
        request,
        "audit",
        "audit/list.html",
        PageState(page="audit", positions={}, viewer=viewer_of(request)),
        found=found,
        acts=Act.choices,
        filters=filters,
        query=urlencode(filters),
        number=number,
        has_next=offset + ENTRIES_A_PAGE < found.total,
    )


def filters_in(query: QueryDict) -> dict[str, str]:
    """Read the filters that an address names; what is none is passed over."""
    given = {name: _text(query.get(name, "")) for name in ("person", "act", "subject", "from", "to")}
    if given["act"] not in Act.values:
        given["act"] = ""
    for name in ("from", "to"):
        day = _day(given[name])
        given[name] = day.isoformat() if day else ""
    return {name: value for name, value in given.items() if value}


def wanted_by(filters: dict[str, str]) -> Wanted:
    """Return which entries these filters, as `filters_in` reads them, leave."""
    first, last = _day(filters.get("from", "")), _day(filters.get("to", ""))
    return Wanted(
        person=filters.get("person", ""),
        act=filters.get("act", ""),
        subject=filters.get("subject", ""),
        since=_midnight(first) if first else None,
        until=_midnight(last) + DAY if last else None,
    )


def as_csv(wanted: Wanted) -> Iterator[str]:
    """Write what is wanted as CSV, the columns' names first."""
    return csv_lines(queries.COLUMNS, (tuple(row.values()) for row in queries.exported(wanted)))


def _text(value: str) -> str:
    # PostgreSQL takes no text with a NUL in it, not even to look for.
    return value.replace("\0", "").strip()[:LONGEST]


def _day(text: str) -> date | None:
    try:
        day = parse_date(text)
    except ValueError:  # as of the 31st of June
        return None
    return day if day is not None and 1970 <= day.year < 9999 else None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
