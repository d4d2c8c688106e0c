"""The page of the server's health."""

from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.queries.positions import positions_of
from fl.roles import Role
from fl.views.page import PageState, shown
from realtime.groups import Kind
from realtime.report import measure

WORDS = {
    Kind.DASHBOARD: _("Dashboards"),
    Kind.CLIENTS: _("Devices"),
    Kind.ADMIN: _("Admins’ programs"),
    Kind.GENERAL: _("Anybody, on /ws"),
}
"""What types of connections are called on the page."""


@require_GET
@never_cache
@needs(Role.VIEWER)
def health(request: HttpRequest) -> HttpResponseBase:
    """Show how the server is at this moment; addresses and paths are for admins alone."""
    # First: what happens while it is measured is told by the socket.
    positions = positions_of(principal_of(request), [])
    report = measure(timezone.now())
    return shown(
        request,
        "health",
        "health.html",
        PageState(page="health", positions=positions, viewer=viewer_of(request)),
        report=report,
        sockets=[(gettext(word), report.sockets.connections[kind]) for kind, word in WORDS.items()],
    )
