"""The trash: what lies in it, moving runs there and back; and protecting runs from it."""

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fl import trash
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.exceptions import Conflict, NotFound
from fl.models import Run
from fl.queries import trash as queries
from fl.queries.run_list import run_number
from fl.queries.runs import visible_run
from fl.roles import Role
from fl.views.page import PageState, number_in, person_at, sentence_of, shown, way_back

MOST_AT_ONCE = 200


@require_GET
@never_cache
@needs(Role.ADMIN)
def list_trash(request: HttpRequest) -> HttpResponseBase:
    """List what lies in the trash, what came last first; `?page=` turns pages."""
    number = max(1, number_in(request.GET.get("page")) or 1)
    offset = (number - 1) * queries.RUNS_A_PAGE
    found = queries.trash_page(principal_of(request), offset=offset)
    return shown(
        request,
        "runs",
        "runs/trash.html",
        PageState(page="trash", positions={}, viewer=viewer_of(request)),
        found=found,
        number=number,
        has_next=offset + queries.RUNS_A_PAGE < found.total,
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.ADMIN)
def move_to_trash(request: HttpRequest) -> HttpResponseBase:
    """Ask whether the runs that `run` names are to be moved to the trash; move those that can be."""
    chosen = queries.chosen_runs(principal_of(request), _numbers_in(request))
    if request.method == "POST":
        return _move(request, chosen)
    obstacles = [(run, trash.obstacle(run)) for run in chosen]
    return shown(
        request,
        "runs",
        "runs/move_to_trash.html",
        PageState(page="trash", positions={}, viewer=viewer_of(request)),
        movable=[run for run, conflict in obstacles if conflict is None],
        kept=[(run, sentence_of(conflict)) for run, conflict in obstacles if conflict is not None],
        goes_at=trash.goes_at(timezone.now()),
    )


def _numbers_in(request: HttpRequest) -> list[int]:
    texts = (request.POST if request.method == "POST" else request.GET).getlist("run")[:MOST_AT_ONCE]
    return [number for number in map(run_number, texts) if number is not None]


def _move(request: HttpRequest, chosen: list[Run]) -> HttpResponse:
    moved = 0
    for run in chosen:
        # Each for itself: one that cannot go keeps none of the others.
        try:
            trash.move_to_trash(run=run, now=timezone.now(), by=person_at(request))
        except (Conflict, NotFound) as error:
            messages.error(request, sentence_of(error))
        else:
            moved += 1
    if moved:
        said = ngettext("{count} run is in the trash now.", "{count} runs are in the trash now.", moved)
        messages.success(request, said.format(count=moved))
    return redirect("run-list")


@require_POST
@needs(Role.ADMIN)
def restore_run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Restore a run from the trash, and go back to where the form was."""
    try:
        run = queries.run_in_trash(principal_of(request), run_id)
        trash.restore_run(run=run, now=timezone.now(), by=person_at(request))
    except NotFound as error:
        messages.error(request, sentence_of(error))
    else:
        messages.success(request, gettext("{run} is restored.").format(run=run))
    return redirect(way_back(request, reverse("trash")))


@require_POST
@needs(Role.ADMIN)
def protect_run(request: HttpRequest, run_id: int, use_case: Callable[..., Run]) -> HttpResponseBase:
    """Protect a run from the trash, or end that, as `use_case` does; and go back to where the form was."""
    try:
        use_case(run=visible_run(principal_of(request), run_id), now=timezone.now(), by=person_at(request))
    except NotFound as error:
        raise Http404(error.message) from error
    return redirect(way_back(request, reverse("run", args=[run_id])))
