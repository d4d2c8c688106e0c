"""Compare: the curves of several runs over each other, and what differs between them."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.queries.compare import MOST, NEWEST, ComparedRun, Comparison, comparison
from fl.roles import Role
from fl.views.page import PageState, shown

METRICS = ("accuracy", "loss")
TABLE_ROUNDS = NEWEST
"""How many of the newest rounds the table shows; scripts know them one by one."""


@require_GET
@never_cache
@needs(Role.VIEWER)
def compare(request: HttpRequest) -> HttpResponseBase:
    """Compare the runs that `?run=` names; `x` is round or time, `metric` shows one alone, `all` every setting."""
    found = comparison(principal_of(request), request.GET.getlist("run"))
    wishes = {
        "x": "time" if request.GET.get("x") == "time" else "",
        "metric": _one_of(METRICS, request.GET.get("metric")),
        "all": "1" if request.GET.get("all") == "1" else "",
    }
    numbers = [each.run.pk for each in found.runs]
    state = PageState(
        page="compare",
        positions=found.positions,
        viewer=viewer_of(request),
        runs=tuple(each.status for each in found.runs),
        curves=tuple(found.drawn()),
    )
    rounds = _rounds(found.runs)
    return shown(
        request,
        "compare",
        "compare.html",
        state,
        found=found,
        wishes=wishes,
        rows=[_row(place, each, numbers, wishes) for place, each in enumerate(found.runs)],
        settings=_settings(found, show_all=bool(wishes["all"])),
        same=sum(not setting.differs for setting in found.settings),
        metrics=[wishes["metric"]] if wishes["metric"] else METRICS,
        by_metric=[(name, _address(numbers, wishes, metric=name)) for name in ("", *METRICS)],
        by_x=[(name, _address(numbers, wishes, x=name)) for name in ("", "time")],
        other_settings=_address(numbers, wishes, all="" if wishes["all"] else "1"),
        rounds=rounds[:TABLE_ROUNDS],
        hidden_rounds=max(0, len(rounds) - TABLE_ROUNDS),
        most=MOST,
        has_room=len(numbers) < MOST,
    )


def _one_of(names: Iterable[str], text: str | None) -> str:
    return text if text and text in names else ""


def _address(numbers: Iterable[int], wishes: dict[str, str], **changes: str) -> str:
    """Return the query of this comparison, with some of it changed; what is as always is left out."""
    values = {name: value for name, value in {**wishes, **changes}.items() if value}
    return "?" + urlencode([*(("run", number) for number in numbers), *values.items()])


def _row(place: int, each: ComparedRun, numbers: list[int], wishes: dict[str, str]) -> dict[str, Any]:
    curve = each.curve
    return {
        "place": place,
        "run": each.run,
        "status": each.status,
        "curve": curve,
        "figures": {f"{end}_{name}": getattr(curve, end)(name) for end in ("best", "last") for name in METRICS},
        "without": _address([number for number in numbers if number != each.run.pk], wishes),
    }


def _settings(found: Comparison, *, show_all: bool) -> list[Any]:
    # One run differs from none: all of it is shown.
    everything = show_all or len(found.runs) == 1
    return [setting for setting in found.settings if everything or setting.differs]


def _rounds(runs: list[ComparedRun]) -> list[tuple[int, list[tuple[float | None, float | None]]]]:
    """Return rounds, newest first, each with accuracy and loss of every run."""
    tables = [
        dict(zip(each.curve.rounds, zip(each.curve.accuracy, each.curve.loss, strict=True), strict=True))
        for each in runs
    ]
    numbers = sorted({number for table in tables for number in table}, reverse=True)
    return [(number, [table.get(number, (None, None)) for table in tables]) for number in numbers]
