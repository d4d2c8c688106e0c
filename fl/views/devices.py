"""The devices: their list, enrolment, and commands to them."""

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from fl import devices
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.exceptions import Conflict
from fl.forms import EnrollForm
from fl.models import Device
from fl.queries import devices as queries
from fl.roles import Role
from fl.views.page import PageState, person_at, sentence_of, shown, way_back


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
    return shown(request, "devices", "devices/list.html", state, found=found, online=online)


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
            created_by=person_at(request),
            now=timezone.now(),
        )
    found = queries.fleet(principal_of(request), with_tokens=True)
    state = PageState(page="enroll", positions=found.positions, viewer=viewer_of(request), devices=tuple(found.devices))
    return shown(
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
    now, by = timezone.now(), person_at(request)
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
    now, by = timezone.now(), person_at(request)
    return _do_to_device(request, device_id, lambda device: devices.revoke(device=device, reason="", now=now, by=by))


def _do_to_device(request: HttpRequest, device_id: int, use_case: Callable[[Device], Device]) -> HttpResponse:
    try:
        use_case(get_object_or_404(Device, pk=device_id))
    except Conflict as error:
        messages.error(request, sentence_of(error))
    return redirect(way_back(request, reverse("device-list")))
