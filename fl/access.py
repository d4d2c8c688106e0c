"""Who may open a page. A control that one may not use is not drawn, and what it would do is refused all the same."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext

from fl.roles import Role
from fl.visibility import Principal, principal_of_user

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

_PRINCIPAL = "_qflare_principal"


def principal_of(request: HttpRequest) -> Principal:
    """Return the one who looks at a page; found out once a request."""
    found = request.__dict__.get(_PRINCIPAL)
    if found is None:
        found = request.__dict__[_PRINCIPAL] = principal_of_user(request.user)
    if not isinstance(found, Principal):
        raise TypeError(f"the request carries {found!r} for a principal")
    return found


def needs(role: Role) -> Callable[[View[P]], View[P]]:
    """Let people with this role in; send those who are not signed in to the login, and refuse the others."""

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if principal_of(request).role >= role:
                return view(request, *args, **kwargs)
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            raise PermissionDenied(gettext("this needs the role {role}").format(role=gettext(role.name.lower())))

        return guarded

    return decorate
