"""The pages: each parses, reads through `fl.queries` or calls one use case, and answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from edge.protocol.server import DeviceStatus, FlStatusUpdate, TrainingProgress
from fl import devices, feed, people, queries, runs
from fl.access import needs, principal_of
from fl.context import Viewer, viewer_of
from fl.demo import TASK as DEMO_TASK
from fl.demo import devices_ready_for_demo, start_demo_run
from fl.exceptions import Conflict, FlError, Invalid, NotFound
from fl.forms import EnrollForm, NewRunForm
from fl.lifecycle import RunState
from fl.models import Device, Run
from fl.queries import Overview, Positions, RoundLine, RunView
from fl.roles import Role
from fl.strategies import STRATEGIES
from fl.tasks import digest_of_task, task_names

RUNS_A_PAGE = 25
FEED_LINES = 60
TABLE_ROUNDS = 100
"""How many of the newest rounds a run's table shows."""


# ── what the scripts of a page start from ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PageState:
    """What a page was rendered from, with the positions of its streams at that moment."""

    page: str
    positions: Positions
    viewer: Viewer
    run_id: int | None = None
    runs: tuple[FlStatusUpdate, ...] = ()
    rounds: tuple[RoundLine, ...] = ()
    progress: tuple[TrainingProgress, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    told: tuple[feed.Told, ...] = ()
    now: datetime = field(default_factory=timezone.now)
    """The server's clock, from which the page counts down."""


def _shown(request: HttpRequest, page: str, template: str, state: PageState, **context: Any) -> HttpResponse:
    return render(
        request,
        template,
        {
            "page": page,
            "state": state,
            "words": feed.vocabulary(),
            "sprite": static("vendor/lucide/sprite.svg"),
            # What the rows of <template> elements are drawn from.
            "nobody": None,
            **context,
        },
    )


# ── overview and runs ─────────────────────────────────────────────────────────────────────────────────────────────────


@require_GET
@never_cache
@needs(Role.VIEWER)
def overview(request: HttpRequest) -> HttpResponseBase:
    """Show the newest open run, or the one that `?run=` names; without any run, a guide."""
    return _run_page(request, "overview", _number(request.GET.get("run")))


@require_GET
@never_cache
@needs(Role.VIEWER)
def run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Show one run."""
    return _run_page(request, "run", run_id)


def _run_page(request: HttpRequest, page: str, run_id: int | None) -> HttpResponse:
    try:
        found = queries.overview(principal_of(request), run_id)
    except NotFound as error:
        raise Http404(error.message) from error
    told = feed.tell(found.events)
    view = found.view
    state = PageState(
        page=page,
        positions=found.positions,
        viewer=viewer_of(request),
        run_id=view.run.pk if view else None,
        runs=(view.status,) if view else (),
        rounds=tuple(view.rounds) if view else (),
        progress=tuple(view.progress) if view else (),
        devices=tuple(found.devices),
        told=tuple(told[:FEED_LINES]),
    )
    online = sum(device.presence == "online" for device in found.devices)
    context: dict[str, Any] = {"found": found, "told": told[:FEED_LINES], "online": online}
    if view is None:
        return _shown(request, page, "guide.html", state, **context, **_guide(request, found))
    return _shown(request, page, "run.html", state, **context, **_view_context(view))


def _view_context(view: RunView) -> dict[str, Any]:
    shown_rounds = view.rounds[-TABLE_ROUNDS:][::-1]
    status = view.status
    return {
        "view": view,
        "run": view.run,
        "status": status,
        "task": status.task,
        "can": dict.fromkeys(status.actions, True),
        "quorum": QuorumBar.of(status),
        "table_rounds": shown_rounds,
        "hidden_rounds": len(view.rounds) - len(shown_rounds),
        "median_seconds": queries.median_seconds(view.rounds),
        "measured_on_devices": view.newest is not None and view.newest.metrics is None,
    }


@dataclass(frozen=True)
class QuorumBar:
    """How much of the bar of updates is filled and where the quorum's mark stands, in per cent of its width."""

    received: float
    mark: float

    @classmethod
    def of(cls, status: FlStatusUpdate) -> "QuorumBar":
        whole = max(status.selected or status.cohort_size, status.quorum, 1)
        return cls(received=100 * status.updates_received / whole, mark=100 * status.quorum / whole)


def _guide(request: HttpRequest, found: Overview) -> dict[str, Any]:
    return {
        "task": DEMO_TASK,
        "pending": [device for device in found.devices if device.state == "pending"],
        "ready_for_demo": devices_ready_for_demo() if viewer_of(request).operates else 0,
        "address": request.build_absolute_uri("/").rstrip("/"),
    }


@require_GET
@never_cache
@needs(Role.VIEWER)
def run_list(request: HttpRequest) -> HttpResponseBase:
    """List the runs, newest first; `?state=` filters, `?page=` turns pages."""
    state = request.GET.get("state", "")
    if state not in set(RunState):
        state = ""
    number = max(1, _number(request.GET.get("page")) or 1)
    offset = (number - 1) * RUNS_A_PAGE
    found = queries.run_list(principal_of(request), state=state, offset=offset, limit=RUNS_A_PAGE)
    return _shown(
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
            made = runs.create_run(plan=form.plan(), created_by=_person(request), now=timezone.now())
            if form.cleaned_data["start"]:
                runs.start_run(run=made, now=timezone.now(), by=_person(request))
            return redirect("run", made.pk)
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, _sentence(error))
    digests = {name: digest_of_task(name) for name in task_names()}
    ready = queries.ready_devices(list(digests.values()))
    state = PageState(page="new-run", positions={}, viewer=viewer_of(request))
    return _shown(
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
        made = start_demo_run(created_by=_person(request), now=timezone.now())
    except FlError as error:
        messages.error(request, _sentence(error))
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
    return _do(request, run_id, lambda found: use_case(run=found, now=timezone.now(), by=_person(request)))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def stop_run(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Ask whether to stop after this round or now; stop."""
    if request.method != "POST":
        found = queries.visible_run(principal_of(request), run_id)
        state = PageState(page="stop", positions={}, viewer=viewer_of(request))
        return _shown(request, "stop", "runs/stop.html", state, run=found)
    after_round = request.POST.get("when") != "now"
    return _do(
        request,
        run_id,
        lambda found: runs.stop_run(run=found, now=timezone.now(), by=_person(request), after_round=after_round),
    )


def _do(request: HttpRequest, run_id: int, use_case: Callable[[Run], Run]) -> HttpResponse:
    try:
        use_case(queries.visible_run(principal_of(request), run_id))
    except NotFound as error:
        raise Http404(error.message) from error
    except Conflict as error:
        messages.error(request, _sentence(error))
    return redirect(_way_back(request, reverse("run", args=[run_id])))


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@require_GET
@never_cache
@needs(Role.VIEWER)
def device_list(request: HttpRequest) -> HttpResponseBase:
    """List the devices."""
    found = queries.fleet(principal_of(request))
    state = PageState(
        page="devices", positions=found.positions, viewer=viewer_of(request), devices=tuple(found.devices)
    )
    online = sum(device.presence == "online" for device in found.devices)
    return _shown(request, "devices", "devices/list.html", state, found=found, online=online)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def enroll_device(request: HttpRequest) -> HttpResponseBase:
    """Issue a token, shown in this one answer and never again, and list who waits for approval."""
    form = EnrollForm(request.POST or None, initial={"lifetime": "900"})
    token = text = None
    if request.method == "POST" and form.is_valid():
        token, text = devices.issue_token(
            label=form.cleaned_data["label"],
            auto_approve=form.cleaned_data["auto_approve"],
            lifetime=form.duration,
            created_by=_person(request),
            now=timezone.now(),
        )
    found = queries.fleet(principal_of(request), with_tokens=True)
    state = PageState(page="enroll", positions=found.positions, viewer=viewer_of(request), devices=tuple(found.devices))
    return _shown(
        request,
        "enroll",
        "devices/enroll.html",
        state,
        form=form,
        found=found,
        token=token,
        token_text=str(text) if text else "",
        pending=[device for device in found.devices if device.state == "pending"],
        address=request.build_absolute_uri("/").rstrip("/"),
        now=timezone.now(),
    )


@require_POST
@needs(Role.OPERATOR)
def command_device(request: HttpRequest, device_id: int, command: str) -> HttpResponseBase:
    """Approve, suspend or reinstate a device; only admins revoke one."""
    if command == "revoke":
        return _revoke_device(request, device_id)
    now, by = timezone.now(), _person(request)
    use_cases: dict[str, Callable[[Device], Device]] = {
        "approve": lambda device: devices.approve(device=device, now=now, by=by),
        "suspend": lambda device: devices.suspend(device=device, reason="", now=now, by=by),
        "reinstate": lambda device: devices.reinstate(device=device, now=now, by=by),
    }
    if command not in use_cases:
        raise Http404(f"there is no command {command}")
    return _do_to_device(request, device_id, use_cases[command])


@needs(Role.ADMIN)
def _revoke_device(request: HttpRequest, device_id: int) -> HttpResponseBase:
    now, by = timezone.now(), _person(request)
    return _do_to_device(request, device_id, lambda device: devices.revoke(device=device, reason="", now=now, by=by))


def _do_to_device(request: HttpRequest, device_id: int, use_case: Callable[[Device], Device]) -> HttpResponse:
    try:
        use_case(get_object_or_404(Device, pk=device_id))
    except Conflict as error:
        messages.error(request, _sentence(error))
    return redirect(_way_back(request, reverse("device-list")))


# ── signing in ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Login(LoginView):
    """The login by name and password."""

    extra_context = {"page": "login"}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Exchange a code for a session; the page's script takes it from the address's fragment, which is never sent."""
    refused = ""
    if request.method == "POST":
        try:
            person = people.redeem_sign_in_code(code=request.POST.get("code", ""), now=timezone.now())
        except FlError as error:
            refused = _sentence(error)
        else:
            login(request, person)
            return redirect(_way_back(request, reverse("overview")))
    return render(request, "sign_in.html", {"page": "sign-in", "refused": refused}, status=403 if refused else 200)


# ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _person(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _sentence(error: FlError) -> str:
    """Say what and why, and what to do, in one line for a notice."""
    what = error.message[:1].upper() + error.message[1:]
    return f"{what}. {error.action[:1].upper()}{error.action[1:]}." if error.action else f"{what}."


def _way_back(request: HttpRequest, otherwise: str) -> str:
    wanted = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and safe else otherwise
