"""The inspector: the frames of the page's own socket, for people who write against the protocol."""

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from fl.access import needs, principal_of
from fl.context import viewer_of
from fl.demo import devices_ready_for_demo
from fl.queries.positions import positions_of
from fl.roles import Role
from fl.views.page import PageState, shown
from fl.visibility import runs_for


@require_GET
@never_cache
@needs(Role.VIEWER)
def inspector(request: HttpRequest) -> HttpResponseBase:
    """Show what its script fills, and what to try it with."""
    principal, viewer = principal_of(request), viewer_of(request)
    open_runs = runs_for(principal).filter(ended_at__isnull=True).only("pk")
    return shown(
        request,
        "inspector",
        "inspector.html",
        PageState(page="inspector", positions=positions_of(principal, open_runs), viewer=viewer),
        ready_for_demo=devices_ready_for_demo() if viewer.operates else 0,
    )
