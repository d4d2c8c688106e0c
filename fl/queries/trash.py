"""What lies in the trash, and what could be moved there."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fl.exceptions import NotFound
from fl.models import Run
from fl.snapshots import consistent_read
from fl.trash import goes_at
from fl.visibility import Principal, runs_for, trash_for

RUNS_A_PAGE = 50


@dataclass(frozen=True)
class TrashedRun:
    """A run in the trash: since when, and when it goes for good."""

    run: Run
    deleted_at: datetime
    goes_at: datetime


@dataclass(frozen=True)
class TrashPage:
    """A page of what lies in the trash, what came last first."""

    runs: list[TrashedRun]
    total: int


def trash_page(principal: Principal, *, offset: int = 0) -> TrashPage:
    """Read a page of what lies in the trash."""
    with consistent_read():
        found = trash_for(principal)
        page = found.order_by("-deleted_at", "-pk")[offset : offset + RUNS_A_PAGE]
        return TrashPage(
            runs=[TrashedRun(run, run.deleted_at, goes_at(run.deleted_at)) for run in page if run.deleted_at],
            total=found.count(),
        )


def run_in_trash(principal: Principal, run_id: int) -> Run:
    """Return a run that lies in the trash.

    Raises:
        NotFound: it does not.
    """
    run = trash_for(principal).filter(pk=run_id).first()
    if run is None:
        raise NotFound(f"there is no run {run_id} in the trash")
    return run


def chosen_runs(principal: Principal, numbers: Iterable[int]) -> list[Run]:
    """Return the runs of these numbers that one may see, the oldest first."""
    return list(runs_for(principal).filter(pk__in=list(numbers)).order_by("pk"))
