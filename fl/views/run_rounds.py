"""The rounds of a run, one round with every device's part of it, and both as files."""

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.lifecycle import RoundState
from fl.queries import run_rounds as queries
from fl.queries.runs import visible_run
from fl.roles import Role
from fl.views import run_exports
from fl.views.run_tabs import or_404, page_in, shown_tab


@require_GET
@never_cache
@needs(Role.VIEWER)
def rounds(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """List a run's rounds, newest first; `?state=` filters, `?page=` turns pages, `?format=csv|json` is a file."""
    state = request.GET.get("state", "")
    if state not in set(RoundState):
        state = ""
    kind = request.GET.get("format", "")
    if kind in run_exports.FORMATS:
        return run_exports.rounds_file(or_404(visible_run, principal_of(request), run_id), kind, state=state)
    number = page_in(request)
    offset = (number - 1) * queries.ROUNDS_A_PAGE
    found = or_404(queries.round_page, principal_of(request), run_id, state=state, offset=offset)
    return shown_tab(
        request,
        "rounds",
        "runs/rounds.html",
        found.head,
        rounds=tuple(found.lines),
        found=found,
        states=list(RoundState),
        chosen_state=state,
        number=number,
        has_next=offset + queries.ROUNDS_A_PAGE < found.total,
    )


@require_GET
@never_cache
@needs(Role.VIEWER)
def round_(request: HttpRequest, run_id: int, number: int) -> HttpResponseBase:
    """Show one round with its devices' parts, trouble first; `?page=` turns pages, `?format=csv|json` is a file."""
    kind = request.GET.get("format", "")
    if kind in run_exports.FORMATS:
        run = or_404(visible_run, principal_of(request), run_id)
        return or_404(run_exports.assignments_file, run, number, kind)
    page = page_in(request)
    offset = (page - 1) * queries.ASSIGNMENTS_A_PAGE
    found = or_404(queries.round_detail, principal_of(request), run_id, number, offset=offset)
    return shown_tab(
        request,
        "rounds",
        "runs/round.html",
        found.head,
        rounds=(found.line,),
        progress=tuple(found.progress),
        found=found,
        round=found.round,
        line=found.line,
        number=page,
        has_next=offset + queries.ASSIGNMENTS_A_PAGE < found.line.selected,
    )
