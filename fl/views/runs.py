"""The forms of a new run and of an old one's name, and commands to runs."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from edge.tasks import Task
from fl import runs
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.demo import start_demo_run
from fl.exceptions import Conflict, FlError, Invalid, NotFound, TaskUnavailable
from fl.forms import EditRunForm, NewRunForm, Whom
from fl.models import Run
from fl.queries import runs as queries
from fl.queries.positions import positions_of
from fl.queries.qualifying import Qualifying, outlook, qualifying
from fl.queries.run_list import run_number
from fl.roles import Role
from fl.strategies import StrategyError
from fl.tasks import task_named, task_names
from fl.views.page import PageState, number_in, person_at, sentence_of, shown, way_back
from fl.views.run_tabs import or_404


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def new_run(request: HttpRequest) -> HttpResponseBase:
    """Show the form of a new run, filled from the run that `?from=` names; make it, and start it where that is ticked.

    A form that is sent by the button `check` only tells how many devices qualify for what was typed.
    """
    earlier = _earlier(request)
    checks = "check" in request.POST
    form = NewRunForm(request.POST or None, earlier=earlier)
    if request.method == "POST" and form.is_valid() and not checks:
        try:
            made = runs.create_run(plan=form.plan(), created_by=person_at(request), now=timezone.now())
            if form.cleaned_data["start"]:
                runs.start_run(run=made, now=timezone.now(), by=person_at(request))
            return redirect("run", made.pk)
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, sentence_of(error))
    return _show_form(request, form, earlier)


def _show_form(request: HttpRequest, form: NewRunForm, earlier: Run | None) -> HttpResponse:
    whom = form.whom()
    found = _qualifying(whom) if whom else None
    state = PageState(page="new-run", positions=positions_of(principal_of(request), []), viewer=viewer_of(request))
    return shown(
        request,
        "new-run",
        "runs/new.html",
        state,
        form=form,
        earlier=earlier,
        whom=whom,
        qualifying=found,
        outlook=outlook(found.qualified, whom.quorum, whom.cohort_size) if whom and found else "",
        tasks=list(_tasks()),
    )


def _qualifying(whom: Whom) -> Qualifying | None:
    try:
        return qualifying(**whom.criteria, now=timezone.now())
    except (StrategyError, TaskUnavailable):
        return None  # what is wrong stands at the field, once the run is to be made


def _tasks() -> Iterator[Task]:
    """Yield the tasks of this server that can be loaded."""
    for name in task_names():
        with suppress(TaskUnavailable):
            yield task_named(name)


def _earlier(request: HttpRequest) -> Run | None:
    """Return the run that is to be repeated, if there is one that this person may see."""
    number = run_number(request.GET.get("from", ""))
    try:
        return None if number is None else queries.visible_run(principal_of(request), number)
    except NotFound:
        return None


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def edit_run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Show how a run is called, tagged and noted; change it."""
    try:
        run = queries.visible_run(principal_of(request), run_id)
    except NotFound as error:
        raise Http404(error.message) from error
    form = EditRunForm(
        request.POST or None, initial={"name": run.name, "tags": ", ".join(run.tags), "notes": run.notes}
    )
    if request.method == "POST" and form.is_valid():
        try:
            runs.describe_run(run=run, now=timezone.now(), by=person_at(request), **form.description())
            return redirect(way_back(request, reverse("run", args=[run_id])))
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, sentence_of(error))
    state = PageState(page="edit", positions={}, viewer=viewer_of(request))
    return shown(request, "runs", "runs/edit.html", state, form=form, run=run)


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


@require_POST
@needs(Role.OPERATOR)
def extend_deadline(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Extend the deadline of the round that is training, and go back to where the form was."""
    seconds = number_in(request.POST.get("seconds")) or 0
    by, now = person_at(request), timezone.now()
    return _do(request, run_id, lambda found: runs.extend_round(run=found, seconds=seconds, now=now, by=by))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def stop_run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Ask whether to stop after this round or now; stop."""
    if request.method != "POST":
        found = or_404(queries.visible_run, principal_of(request), run_id)
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
    except (Conflict, Invalid) as error:
        messages.error(request, sentence_of(error))
    return redirect(way_back(request, reverse("run", args=[run_id])))
