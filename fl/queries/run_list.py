"""A page of the list of runs: filtered and sorted, each with how it stands and what its best and last models are."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import (
    Case,
    Count,
    DateTimeField,
    F,
    FloatField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Cast, Coalesce, Lower, NullIf

from edge.protocol.server import FlStatusUpdate
from fl.lifecycle import RunState
from fl.metrics import SIGNS, Headline, headline
from fl.models import GlobalModel, Round, Run
from fl.queries.positions import Positions, positions_of
from fl.snapshots import Standing, consistent_read, standings_of, with_newest
from fl.visibility import Principal, runs_for

RUNS_A_PAGE = 25
NEWEST = "-created"
"""The order that a list has unless another one is asked for."""
COLUMNS = (
    *("name", "state", "task", "strategy", "rounds", "devices"),
    *("best", "last", "duration", "started_by", "created"),
)
"""What a list can be sorted by; with a dash before it, from the largest."""
TAGGED_RUNS = 500
"""Of how many of the newest runs with tags these are offered to filter by."""


@dataclass(frozen=True)
class Wishes:
    """Which runs are asked for, in which order; empty is any."""

    state: str = ""
    task: str = ""
    strategy: str = ""
    tag: str = ""
    text: str = ""
    """Part of the name, or a label."""
    sort: str = NEWEST
    page: int = 1

    @property
    def filters(self) -> bool:
        """Whether some runs are left out."""
        return any((self.state, self.task, self.strategy, self.tag, self.text))


@dataclass(frozen=True)
class Facets:
    """The values that one can filter by: those that runs have."""

    tasks: list[str]
    strategies: list[str]
    tags: list[str]


@dataclass(frozen=True)
class RunFigures:
    """What stands for a run's best and for its newest model, None where nothing was measured; and when it ended."""

    run_id: int
    best: Headline | None
    last: Headline | None
    ended_at: datetime | None


@dataclass(frozen=True)
class RunRow:
    """A run as the list shows it."""

    run: Run
    status: FlStatusUpdate
    rounds_done: int
    figures: RunFigures

    def seconds(self, now: datetime) -> float | None:
        """Return how long it has run, to its end or until now; None before it began."""
        if self.run.started_at is None:
            return None
        return max(0.0, ((self.run.ended_at or now) - self.run.started_at).total_seconds())


@dataclass(frozen=True)
class RunList:
    """A page of the list of runs, and what was understood of what was asked for."""

    wishes: Wishes
    rows: list[RunRow]
    total: int
    newest: int
    """The number of the newest run of all; 0 without any."""
    chosen: list[Run]
    """Runs that are ticked and stand on another page."""
    facets: Facets
    positions: Positions

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return _pages(self.total)


def run_list(principal: Principal, wishes: Wishes, *, now: datetime, ticked: Iterable[int] = ()) -> RunList:
    """Read a page of runs; what is wished for and is not there is left out of the wishes.

    Args:
        ticked: numbers of runs that are chosen to be compared.
    """
    with consistent_read():
        visible = runs_for(principal)
        facets = _facets(visible)
        wishes = _possible(wishes, facets)
        found = visible.alias(tags_text=Cast("tags", TextField())).filter(_condition(wishes))
        total = found.count()
        wishes = replace(wishes, page=min(max(1, wishes.page), _pages(total)))
        first = (wishes.page - 1) * RUNS_A_PAGE
        ordered = _with_rounds(with_newest(found)).order_by(*_order(wishes.sort, now))
        page = list(ordered.select_related("best_model__round", "created_by")[first : first + RUNS_A_PAGE])
        elsewhere = set(ticked) - {run.pk for run in page}
        return RunList(
            wishes=wishes,
            rows=[_row(standing) for standing in standings_of(page)],
            total=total,
            newest=visible.aggregate(newest=Max("pk"))["newest"] or 0,
            chosen=list(visible.filter(pk__in=elsewhere).order_by("pk")) if elsewhere else [],
            facets=facets,
            positions=positions_of(principal, page),
        )


def run_number(text: str) -> int | None:
    """Return the number of a run that is written as its label (r-0042) or its number; None for all else."""
    digits = text.strip().lower().removeprefix("r-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def tagged(runs: QuerySet[Run], tag: str) -> QuerySet[Run]:
    """Keep the runs that have a tag; upper and lower case are the same."""
    return runs.alias(tags_text=Cast("tags", TextField())).filter(_has_tag(tag))


def _pages(total: int) -> int:
    return max(1, -(-total // RUNS_A_PAGE))


def _row(standing: Standing) -> RunRow:
    run = standing.run
    best, last = _headline_of(run.best_model), _headline_of(standing.model)
    figures = RunFigures(run.pk, best=best, last=last, ended_at=run.ended_at)
    return RunRow(run, standing.status, rounds_done=vars(run)["rounds_done"], figures=figures)


def _headline_of(model: GlobalModel | None) -> Headline | None:
    if model is None:
        return None
    return headline(model.metrics, model.round.device_metrics if model.round else {})


def _with_rounds(runs: QuerySet[Run]) -> QuerySet[Run]:
    ended = Round.objects.filter(run=OuterRef("pk"), ended_at__isnull=False).order_by().values("run")
    counted = ended.annotate(number_ended=Count("pk")).values("number_ended")
    return runs.annotate(rounds_done=Coalesce(Subquery(counted), 0))


# ── filters ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _facets(runs: QuerySet[Run]) -> Facets:
    pairs = set(runs.order_by().values_list("task", "strategy").distinct())
    lists = runs.exclude(tags=[]).order_by("-pk").values_list("tags", flat=True)[:TAGGED_RUNS]
    tags: dict[str, str] = {}
    for words in lists:
        for word in words:
            tags.setdefault(word.casefold(), word)
    return Facets(
        tasks=sorted({task for task, _ in pairs}),
        strategies=sorted({strategy for _, strategy in pairs}),
        tags=[tags[key] for key in sorted(tags)],
    )


def _possible(wishes: Wishes, facets: Facets) -> Wishes:
    """Forget what no run has, or no list can be sorted by."""
    spelled = {tag.casefold(): tag for tag in facets.tags}
    return replace(
        wishes,
        state=wishes.state if wishes.state in set(RunState) else "",
        task=wishes.task if wishes.task in facets.tasks else "",
        strategy=wishes.strategy if wishes.strategy in facets.strategies else "",
        tag=spelled.get(wishes.tag.casefold(), ""),
        text=wishes.text.replace("\0", "").strip()[:100],
        sort=wishes.sort if wishes.sort.removeprefix("-") in COLUMNS else NEWEST,
    )


def _condition(wishes: Wishes) -> Q:
    exact = {"state": wishes.state, "task": wishes.task, "strategy": wishes.strategy}
    condition = Q(**{name: value for name, value in exact.items() if value})
    if wishes.tag:
        condition &= _has_tag(wishes.tag)
    if wishes.text:
        number = run_number(wishes.text)
        condition &= Q(name__icontains=wishes.text) | (Q() if number is None else Q(pk=number))
    return condition


def _has_tag(tag: str) -> Q:
    # In the list's own text, since SQLite cannot look into a list of JSON. It writes what is not ASCII as \u…, and
    # PostgreSQL as it is.
    written, escaped = json.dumps(tag, ensure_ascii=False), json.dumps(tag)
    return Q(tags_text__icontains=written) | Q(tags_text__icontains=escaped)


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _order(sort: str, now: datetime) -> list[Any]:
    column = _sortable(sort.removeprefix("-"), now)
    # What was not measured, or has not begun, stands last either way.
    ordered = column.desc(nulls_last=True) if sort.startswith("-") else column.asc(nulls_last=True)
    return [ordered, "pk" if sort == "created" else "-pk"]


def _sortable(name: str, now: datetime) -> Any:
    match name:
        case "name":
            return Lower("name")
        case "state":
            return Case(*(When(state=state, then=Value(place)) for place, state in enumerate(RunState)))
        case "rounds":
            return F("rounds_done")
        case "devices":
            return F("cohort_size")
        case "best":
            return _score("best_model__")
        case "last":
            published = GlobalModel.objects.filter(run=OuterRef("pk"), published_at__isnull=False)
            return Subquery(published.order_by("-version").annotate(score=_score("")).values("score")[:1])
        case "duration":
            return Coalesce(F("ended_at"), Value(now, DateTimeField())) - F("started_at")
        case "started_by":
            return Lower("created_by__username")
        case "created":
            return F("created_at")
        case _:
            return F(name)


def _score(prefix: str) -> Case:
    """Say in SQL what `fl.metrics.score` says of a model; a test holds them against each other."""
    server = _headline_in_sql(lambda name: KeyTextTransform(name, f"{prefix}metrics"))
    on_devices = _headline_in_sql(
        lambda name: KeyTextTransform("mean", KeyTransform(name, f"{prefix}round__device_metrics"))
    )
    return Case(When(**{f"{prefix}metrics__isnull": False}, then=server), default=on_devices, output_field=FloatField())


def _headline_in_sql(value_of: Any) -> Coalesce:
    # JSON's null comes as a word, and is no number.
    null = Value("null", TextField())
    signed: list[Combinable] = [
        Value(sign) * Cast(NullIf(value_of(name), null), FloatField()) for name, sign in SIGNS.items()
    ]
    return Coalesce(*signed, output_field=FloatField())
