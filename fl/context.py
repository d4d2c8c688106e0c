"""What every page needs to know: who looks at it, and what they may do."""

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest

from fl.access import principal_of
from fl.roles import Role


@dataclass(frozen=True)
class Viewer:
    """The one who looks at a page, for templates."""

    name: str
    role: str
    signed_in: bool
    sees: bool
    operates: bool
    administers: bool

    @property
    def initials(self) -> str:
        """Two letters for the badge beside the name."""
        return self.name[:2].upper()


def viewer_of(request: HttpRequest) -> Viewer:
    """Return the one who looks, in the terms of templates."""
    role = principal_of(request).role
    user = request.user
    return Viewer(
        name=user.get_username() if user.is_authenticated else "",
        role=role.name.lower(),
        signed_in=user.is_authenticated,
        sees=role >= Role.VIEWER,
        operates=role >= Role.OPERATOR,
        administers=role >= Role.ADMIN,
    )


def page(request: HttpRequest) -> dict[str, object]:
    """Give templates `viewer` and the version."""
    return {"viewer": viewer_of(request), "qflare_version": settings.QFLARE_VERSION}
