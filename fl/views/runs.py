"""The list of runs, the form of a new one, and commands to runs."""

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fl import runs
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.demo import start_demo_run
from fl.exceptions import Conflict, FlError, Invalid, NotFound
from fl.forms import NewRunForm
from fl.lifecycle import RunState
from fl.models import Run
from fl.queries import runs as queries
from fl.queries.devices import ready_devices
from fl.roles import Role
from fl.strategies import STRATEGIES
from fl.tasks import digest_of_task, task_names
from fl.views.page import PageState, number_in, person_at, sentence_of, shown, way_back

RUNS_A_PAGE = 25


@require_GET
@never_cache
@needs(Role.VIEWER)
def run_list(request: HttpRequest) -> HttpResponseBase:
    """List the runs, newest first; `?state=` filters, `?page=` turns pages."""
    state = request.GET.get("state", "")
    if state not in set(RunState):
        state = ""
    number = max(1, number_in(request.GET.get("page")) or 1)
    offset = (number - 1) * RUNS_A_PAGE
    found = queries.run_list(principal_of(request), state=state, offset=offset, limit=RUNS_A_PAGE)
    return shown(
        request,
        "runs",
        "runs/list.html",
        PageState(page="runs", positions=found.positions, viewer=viewer_of(request)),
        found=found,
        states=list(RunState),
        chosen_state=state,
        number=number,
        has_next=offset + RUNS_A_PAGE < found.total,
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def new_run(request: HttpRequest) -> HttpResponseBase:
    """Show the form of a new run; make it, and start it where that is ticked."""
    form = NewRunForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = runs.create_run(plan=form.plan(), created_by=person_at(request), now=timezone.now())
            if form.cleaned_data["start"]:
                runs.start_run(run=made, now=timezone.now(), by=person_at(request))
            return redirect("run", made.pk)
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, sentence_of(error))
    digests = {name: digest_of_task(name) for name in task_names()}
    ready = ready_devices(list(digests.values()))
    state = PageState(page="new-run", positions={}, viewer=viewer_of(request))
    return shown(
        request,
        "new-run",
        "runs/new.html",
        state,
        form=form,
        ready={name: ready[digest] for name, digest in digests.items()},
        strategies=list(STRATEGIES.values()),
    )


@require_POST
@needs(Role.OPERATOR)
def start_demo(request: HttpRequest) -> HttpResponseBase:
    """Create and start the demo's run for the devices that are there."""
    try:
        made = start_demo_run(created_by=person_at(request), now=timezone.now())
    except FlError as error:
        messages.error(request, sentence_of(error))
        return redirect("overview")
    return redirect("run", made.pk)


COMMANDS: dict[str, Callable[..., Run]] = {
    "start": runs.start_run,
    "pause": runs.pause_run,
    "resume": runs.resume_run,
}


@require_POST
@needs(Role.OPERATOR)
def command_run(request: HttpRequest, run_id: int, command: str) -> HttpResponseBase:
    """Start, pause or resume a run, and go back to where the form was."""
    use_case = COMMANDS.get(command)
    if use_case is None:
        raise Http404(f"there is no command {command}")
    return _do(request, run_id, lambda found: use_case(run=found, now=timezone.now(), by=person_at(request)))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def stop_run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Ask whether to stop after this round or now; stop."""
    if request.method != "POST":
        found = queries.visible_run(principal_of(request), run_id)
        state = PageState(page="stop", positions={}, viewer=viewer_of(request))
        return shown(request, "stop", "runs/stop.html", state, run=found)
    after_round = request.POST.get("when") != "now"
    return _do(
        request,
        run_id,
        lambda found: runs.stop_run(run=found, now=timezone.now(), by=person_at(request), after_round=after_round),
    )


def _do(request: HttpRequest, run_id: int, use_case: Callable[[Run], Run]) -> HttpResponse:
    try:
        use_case(queries.visible_run(principal_of(request), run_id))
    except NotFound as error:
        raise Http404(error.message) from error
    except Conflict as error:
        messages.error(request, sentence_of(error))
    return redirect(way_back(request, reverse("run", args=[run_id])))
