"""A device's door to the API: its bearer token. People come by their session."""

from collections.abc import Mapping
from datetime import datetime

from django.contrib.auth.models import AnonymousUser, User
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from fl.devices import device_in_token, device_of_token
from fl.exceptions import Unauthenticated
from fl.models import Device
from fl.visibility import Principal, principal_of_device, principal_of_user

SCHEME = "Bearer"
CHALLENGE = f'{SCHEME} realm="qflare"'
_PRINCIPAL = "_qflare_principal"


class DeviceTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`: `request.auth` is the Device, and `request.user` nobody.

    A device is no person: it never has a role, and what asks for one refuses it.
    """

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Device] | None:
        """Return the device of the token; None without a token of this scheme.

        Raises:
            Unauthenticated: the token is none of ours, too old, or its device may not come in.
        """
        device = device_of_header(request.headers.get("Authorization", ""), timezone.now())
        return None if device is None else (AnonymousUser(), device)

    def authenticate_header(self, request: Request) -> str:
        """Return what a 401 asks for."""
        return CHALLENGE


def device_of_header(value: str, now: datetime) -> Device | None:
    """Return the device of an Authorization header; None without a token of this scheme.

    Raises:
        Unauthenticated: the token is none of ours, too old, or its device may not come in.
    """
    token = _token_in(value)
    return None if token is None else device_of_token(token=token, now=now)


def sender_of(headers: Mapping[str, str], now: datetime) -> int:
    """Return the number of the device whose token is in a request's headers; nothing is read to know it.

    Args:
        headers: by their names in lower case.

    Raises:
        Unauthenticated: there is no token, or it is none of ours, or too old.
    """
    token = _token_in(headers.get("authorization", ""))
    if token is None:
        raise _nobody()
    return device_in_token(token=token, now=now)


def _token_in(value: str) -> str | None:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != SCHEME.lower():
        return None
    if not token.strip():
        raise Unauthenticated("the Authorization header holds no token", action="send: Authorization: Bearer <token>")
    return token.strip()


def device_of(request: Request) -> Device | None:
    """Return the device that asks, or None where a person or nobody does."""
    return request.auth if isinstance(request.auth, Device) else None


def the_device(request: Request) -> Device:
    """Return the device that asks.

    Raises:
        Unauthenticated: none does.
    """
    device = device_of(request)
    if device is None:
        raise _nobody()
    return device


def _nobody() -> Unauthenticated:
    return Unauthenticated("this needs a device's token", action="connect the socket: its welcome brings one")


def person_of(request: Request) -> User | None:
    """Return the person who asks, or None where a device or nobody does."""
    return request.user if isinstance(request.user, User) else None


def principal_of(request: Request) -> Principal:
    """Return the one who asks, as `fl.visibility` knows it; found out once a request."""
    found = request.__dict__.get(_PRINCIPAL)
    if not isinstance(found, Principal):
        device = device_of(request)
        found = principal_of_device(device) if device else principal_of_user(request.user)
        request.__dict__[_PRINCIPAL] = found
    return found
