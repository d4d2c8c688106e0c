"""The page of all events: filtered, page by page, and as a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from edge.protocol.server import DURABLE, format_timestamp
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.feed import KEYS, SEVERITIES
from fl.queries import events as queries
from fl.queries.event_filters import EventFilter
from fl.queries.events import EventLine, Place
from fl.roles import Role
from fl.views.export import StreamedText, csv_lines
from fl.views.page import PageState, number_in, shown

KINDS = [payload.event for payload in DURABLE]
LONGEST_TEXT = 200
COLUMNS = ("timestamp", "stream", "seq", "event", "tone", "title", "detail", "data")
FILTERS = ("severity", "kind", "run", "device", "q", "from", "to", "raw")
"""What of an address says which events are shown."""


@dataclass(frozen=True)
class Asked:
    """What an address asks for: as it was written, and as it was understood.

    Attributes:
        written: of FILTERS, those that count.
    """

    written: Mapping[str, str]
    wanted: EventFilter

    def address(self, **changes: object) -> str:
        """Return the query that asks for the same with something else; None leaves a part out."""
        parts = {**self.written, **changes}
        return "?" + urlencode({name: value for name, value in parts.items() if value is not None})


@require_GET
@never_cache
@needs(Role.VIEWER)
def event_list(request: HttpRequest) -> HttpResponseBase:
    """Tell the events of the log that the address asks for; `?format=csv` and `?format=jsonl` give them as a file."""
    asked = _asked(request)
    if (form := request.GET.get("format")) in EXPORTS:
        return _file_of(request, asked, form)
    place = _place_in(request)
    found = queries.page_of_events(principal_of(request), asked.wanted, place)
    return shown(
        request,
        "events",
        "events/list.html",
        PageState(page="events", positions=found.positions, viewer=viewer_of(request)),
        found=found,
        asked=asked,
        kinds=KINDS,
        is_newest=found.newer is None,
        at=f"{place.at[0]}-{place.at[1]}" if place.at else "",
        links=_links(asked, found),
    )


def _links(asked: Asked, found: queries.EventPage) -> dict[str, Any]:
    severities = [(gettext("All"), None), (gettext("Warnings"), "warnings"), (gettext("Errors"), "errors")]
    return {
        "severities": [
            (word, asked.address(severity=value), asked.wanted.severity == (value or "")) for word, value in severities
        ],
        "newest": asked.address(),
        "newer": asked.address(after=found.newer),
        "older": asked.address(before=found.older),
        "csv": asked.address(format="csv"),
        "jsonl": asked.address(format="jsonl"),
    }


# ── what an address says ──────────────────────────────────────────────────────────────────────────────────────────────


def _asked(request: HttpRequest) -> Asked:
    """Read the filters of an address; what cannot be is left out, as if it had not been asked for."""
    given = {name: request.GET.get(name, "")[:LONGEST_TEXT].replace("\0", "").strip() for name in FILTERS}
    moments = {name: _moment_in(given[name]) for name in ("from", "to")}
    run_id = number_in(given["run"])
    counts = {
        "severity": given["severity"] in SEVERITIES,
        "kind": given["kind"] in KINDS,
        "run": run_id is not None,
        "device": bool(given["device"]),
        "q": bool(given["q"]),
        "from": moments["from"] is not None,
        "to": moments["to"] is not None,
        "raw": given["raw"] == "1",
    }
    given |= {name: _as_input(moment) for name, moment in moments.items() if moment is not None}
    written = {name: given[name] for name in FILTERS if counts[name]}
    kind = written.get("kind", "")
    return Asked(
        written,
        EventFilter(
            severity=written.get("severity", ""),
            kind=kind,
            run_id=run_id,
            device_id=queries.device_named(given["device"]),
            text=given["q"],
            since=moments["from"],
            until=moments["to"],
            # Of some kinds the feed tells none.
            raw=counts["raw"] or bool(kind and kind not in KEYS),
        ),
    )


def _moment_in(text: str) -> datetime | None:
    """Read a moment as ISO 8601 has it; without a zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _as_input(moment: datetime) -> str:
    """Write a moment as fields of forms have it, which know no zone."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _place_in(request: HttpRequest) -> Place:
    stream, _, seq = request.GET.get("at", "").rpartition("-")
    number = _row_in(seq)
    at = (stream.replace("\0", ""), number) if stream and number is not None else None
    return Place(before=_row_in(request.GET.get("before")), after=_row_in(request.GET.get("after")), at=at)


def _row_in(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _csv(lines: Iterator[EventLine]) -> Iterator[str]:
    rows = (
        (
            format_timestamp(line.event.timestamp),
            line.event.stream_id,
            line.event.seq,
            line.event.event,
            line.told.tone,
            line.told.title,
            line.told.detail,
            line.event.data,
        )
        for line in lines
    )
    return csv_lines(COLUMNS, rows)


def _json_lines(lines: Iterator[EventLine]) -> Iterator[str]:
    return (f"{line.frame}\n" for line in lines)


EXPORTS = {
    "csv": (_csv, "text/csv; charset=utf-8"),
    "jsonl": (_json_lines, "application/jsonl; charset=utf-8"),
}


def _file_of(request: HttpRequest, asked: Asked, form: str) -> StreamedText:
    write, content_type = EXPORTS[form]
    lines = write(queries.all_events(principal_of(request), asked.wanted))
    return StreamedText(lines, content_type=content_type, filename=f"events-{timezone.now():%Y%m%d-%H%M%S}.{form}")
