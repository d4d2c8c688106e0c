"""Who may ask for what: people by role, devices for what is theirs; refused unless allowed."""

from typing import TYPE_CHECKING, ClassVar

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from fl.api.authentication import device_of, principal_of, the_device
from fl.exceptions import NotAllowed, Unauthenticated
from fl.roles import Role, role_names

if TYPE_CHECKING:
    # DRF's views import this module by way of the settings.
    from rest_framework.views import APIView


class ByRole(BasePermission):
    """Viewers read, operators command, admins delete; the classes below ask for more."""

    reads: ClassVar[Role] = Role.VIEWER
    commands: ClassVar[Role] = Role.OPERATOR
    deletes: ClassVar[Role] = Role.ADMIN

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Let the request pass, or raise what is missing.

        Raises:
            Unauthenticated: nobody is signed in.
            NotAllowed: the one who asks is no person, or has too low a role.
        """
        needed = self._needed(request.method, view)
        if principal_of(request).role >= needed:
            return True
        name = role_names(needed)[-1]
        if device_of(request) is None and not request.user.is_authenticated:
            raise Unauthenticated(f"this needs a signed-in {name}", action="sign in")
        raise NotAllowed(f"this needs the role {name}", action="ask an admin for the role")

    def _needed(self, method: str | None, view: "APIView") -> Role:
        # What an address does not know is answered 405 afterwards: no role would help.
        if method in SAFE_METHODS or method not in view.allowed_methods:
            return self.reads
        return self.deletes if method == "DELETE" else self.commands


class ForOperators(ByRole):
    """Also reading takes an operator."""

    reads = Role.OPERATOR


class ForAdmins(ByRole):
    """All takes an admin."""

    reads = Role.ADMIN
    commands = Role.ADMIN


class ForDevices(BasePermission):
    """For devices alone, each by its own token."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Let a device pass.

        Raises:
            Unauthenticated: no device asks.
        """
        return the_device(request) is not None
