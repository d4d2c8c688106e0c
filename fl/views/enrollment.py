"""How devices are let in: tokens are issued, shown once, and withdrawn."""

from datetime import datetime

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from edge.errors import BadUsage
from edge.http import Server
from edge.protocol.enrollment import TokenText
from fl import devices
from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.exceptions import Conflict
from fl.forms import EnrollForm
from fl.models import EnrollmentToken
from fl.qr import qr_code
from fl.queries.enrollment import enrollment
from fl.roles import Role
from fl.views.page import PageState, address_of, is_piecemeal, number_in, person_at, sentence_of, shown


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.OPERATOR)
def enroll_device(request: HttpRequest) -> HttpResponseBase:
    """Issue a token, shown in this one answer and never again, and list who waits for approval.

    `?token=` names a token by its number: the page says what has become of it.
    """
    now = timezone.now()
    form = EnrollForm(request.POST or None, initial={"lifetime": "900"})
    number, text = number_in(request.GET.get("token")), None
    if request.method == "POST" and form.is_valid():
        token, text = _issue(request, form, now)
        number = token.pk
    found = enrollment(principal_of(request), number, now)
    state = PageState(page="enroll", positions=found.positions, viewer=viewer_of(request), devices=tuple(found.devices))
    address = request.build_absolute_uri("/").rstrip("/")
    return shown(
        request,
        "enroll",
        "devices/enroll_pieces.html" if is_piecemeal(request) else "devices/enroll.html",
        state,
        form=form,
        found=found,
        awaited=found.awaited,
        token_text=str(text) if text else "",
        qr=qr_code(str(text)) if text else None,
        pending=[device for device in found.devices if device.state == "pending"],
        rows={device.pk: device for device in found.pending},
        address=address,
        is_safe=is_safe(address),
        now=now,
        here=address_of(request),
    )


def _issue(request: HttpRequest, form: EnrollForm, now: datetime) -> tuple[EnrollmentToken, TokenText]:
    return devices.issue_token(
        label=form.cleaned_data["label"],
        auto_approve=form.cleaned_data["auto_approve"],
        lifetime=form.duration,
        created_by=person_at(request),
        now=now,
    )


def is_safe(address: str) -> bool:
    """Say whether a device would send its token to this address: by TLS, or within one machine."""
    try:
        server = Server(address)
    except BadUsage:
        return False
    return server.is_encrypted or server.is_loopback


@require_POST
@needs(Role.OPERATOR)
def withdraw_token(request: HttpRequest, token_id: int) -> HttpResponseBase:
    """Make a token void that no device has used."""
    try:
        token = get_object_or_404(EnrollmentToken, pk=token_id)
        devices.withdraw_token(token=token, now=timezone.now(), by=person_at(request))
    except Conflict as error:
        messages.error(request, sentence_of(error))
    return redirect("enroll-device")
