"""Who is at the other end: people by Django session and origin, devices by the handshake of `edge.protocol`."""

import hashlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, parse_cookie
from django.http.request import split_domain_port, validate_host

from edge.identity import AUTH_CONTEXT, BadSignature, SigningKey, verify
from edge.protocol import handshake
from edge.protocol.close_codes import CloseCode
from fl.exceptions import NotAllowed, Unauthenticated
from fl.lifecycle import DeviceState
from fl.models import Device, PresenceLease
from fl.roles import Role, role_names
from fl.sessions import SessionStore
from fl.visibility import ANYONE, Principal, principal_of_user
from realtime.groups import Kind

Refusal = Unauthenticated | NotAllowed
_DEFAULT_PORTS = {"http": 80, "https": 443}


# ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Person:
    """Who came with a browser: perhaps signed in, and with what rights on this type of connection."""

    principal: Principal
    name: str | None = None
    session_key: str = ""
    password_digest: str = ""
    """Of the password's hash: another one means that the password was changed."""

    @property
    def roles(self) -> list[str]:
        """The names of the person's roles on this connection."""
        return role_names(self.principal.role)


def person_of(kind: Kind, cookie: str) -> Person:
    """Return who a session cookie is for, with the rights that this type of connection gives.

    Raises:
        Unauthenticated: nobody is signed in, and the type is not open to everybody.
        NotAllowed: the person's role is too low.
    """
    key = parse_cookie(cookie).get(settings.SESSION_COOKIE_NAME, "")
    user = user_of_session(key) if key and kind is not Kind.GENERAL else AnonymousUser()
    principal = principal_on(kind, user)
    if isinstance(user, User):
        return Person(principal, user.get_username(), key, password_digest(user))
    return Person(principal)


def people_of(cookies: Sequence[tuple[Kind, str]]) -> list[Person | Exception]:
    """Return who session cookies are for, each as `person_of` says or with what it raises; of equal ones once."""
    known: dict[tuple[Kind, str], Person | Exception] = {}
    for kind, cookie in cookies:
        if (kind, cookie) not in known:
            known[kind, cookie] = _person_or_error(kind, cookie)
    return [known[one] for one in cookies]


def _person_or_error(kind: Kind, cookie: str) -> Person | Exception:
    try:
        return person_of(kind, cookie)
    except DatabaseFailure:
        raise
    except Exception as error:
        # Most often a refusal; whatever it is, it must not keep the others out.
        return error


def principal_on(kind: Kind, user: User | AnonymousUser) -> Principal:
    """Return how a person looks through one type of connection.

    On `/ws` everybody is anyone. A dashboard shows what operators see, an admin's too: what is for admins alone is told
    on `/ws/admin`.

    Raises:
        Unauthenticated: nobody is signed in, and the type is not open to everybody.
        NotAllowed: the person's role is too low.
    """
    if kind is Kind.GENERAL:
        return ANYONE
    principal = principal_of_user(user)
    needed = Role.ADMIN if kind is Kind.ADMIN else Role.VIEWER
    if principal.role < needed:
        if not user.is_authenticated:
            raise Unauthenticated("this needs a signed-in person", action="sign in, then connect again")
        raise NotAllowed(f"this needs the role {needed.name.lower()}", action="ask an admin for the role")
    return principal if kind is Kind.ADMIN else replace(principal, role=min(principal.role, Role.OPERATOR))


def user_of_session(key: str) -> User | AnonymousUser:
    """Return whose session this is; nobody's when it has ended or the password was changed since."""
    request = HttpRequest()
    request.session = SessionStore(key)
    user = get_user(request)
    return user if isinstance(user, User) else AnonymousUser()


def password_digest(user: User) -> str:
    """Return what changes with the password, and tells nothing of it."""
    return hashlib.sha256(user.get_session_auth_hash().encode()).hexdigest()


def session_digest(key: str) -> str:
    """Return a name for a session that may travel over the layer, where its key must not."""
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


@dataclass(frozen=True)
class Standing:
    """What people who are connected may do now: by user, for all of that user's connections, and the open sessions."""

    password_digests: dict[int, str]
    principals: dict[tuple[Kind, int], Principal | Refusal]
    """As `principal_on` returns them, or what it raises."""
    sessions: frozenset[str]


def standing_of(user_ids: Collection[int], session_keys: Collection[str], now: datetime) -> Standing:
    """Look up people and sessions, all of them in three queries however many there are."""
    users = list(User.objects.filter(pk__in=user_ids, is_active=True).prefetch_related("groups"))
    sessions = Session.objects.filter(session_key__in=session_keys, expire_date__gt=now)
    return Standing(
        {user.pk: password_digest(user) for user in users},
        {(kind, user.pk): _principal_or_refusal(kind, user) for user in users for kind in Kind},
        frozenset(sessions.values_list("session_key", flat=True)),
    )


def _principal_or_refusal(kind: Kind, user: User) -> Principal | Refusal:
    try:
        return principal_on(kind, user)
    except (Unauthenticated, NotAllowed) as refusal:
        return refusal


# ── origin ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def origin_is_allowed(origin: str, host: str, *, is_encrypted: bool = False) -> bool:
    """Say whether a page of this origin may connect: one of ours, or one of QFLARE_ALLOWED_ORIGINS.

    Ours are the pages of the very host and port that the connection was made to, provided that the host is one of
    ALLOWED_HOSTS; otherwise a name that a stranger points at this address would do. The origin `null`, which files and
    sandboxed frames have, is nobody's.

    Args:
        is_encrypted: the connection came by TLS, by which pages come too, then.
    """
    allowed = settings.QFLARE_ALLOWED_ORIGINS
    if "*" in allowed or _place(origin) in {_place(one) for one in allowed} - {None}:
        return True
    place = _place(origin)
    if place is None or (place[0] != "https" and (is_encrypted or settings.QFLARE_BEHIND_TLS)):
        return False
    domain, _ = split_domain_port(host)
    return _place(f"{place[0]}://{host}") == place and validate_host(domain, settings.ALLOWED_HOSTS)


def _place(origin: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname or port is None:
        return None
    return parts.scheme, parts.hostname, port


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return a header of the upgrade request; empty when it is missing."""
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def verify_device(*, device_id: int, hello: str, challenge: str, signature: str) -> None:
    """Check that a device holds the key it was enrolled with.

    The answer is the same, and takes about as long, whether the device is unknown or the signature wrong. A device that
    is pending, suspended or revoked passes here: it hears why it is barred only after it proved its key.

    Args:
        hello, challenge: the exact texts of both frames.
        signature: base64 of the device's signature over their transcript.

    Raises:
        Unauthenticated: it does not.
    """
    device = Device.objects.filter(pk=device_id).only("public_key").first()
    public_key = bytes(device.public_key) if device else _nobodys_key()
    try:
        raw = b64decode(signature, validate=True)
        verify(public_key, raw, handshake.transcript(hello, challenge), AUTH_CONTEXT)
    except (Base64Error, ValueError, BadSignature) as error:
        raise Unauthenticated(_NOT_PROVEN) from error
    if device is None:
        raise Unauthenticated(_NOT_PROVEN)


@dataclass(frozen=True)
class DeviceStanding:
    """Which connections of devices are to end, by their ids, and which devices have no lease."""

    ends: dict[str, CloseCode]
    lapsed: frozenset[int]


def device_standing_of(connections: Mapping[str, int]) -> DeviceStanding:
    """Look up devices that are connected and their leases, in two queries however many there are.

    Args:
        connections: id of a connection here → id of its device.
    """
    ids = set(connections.values())
    states = dict(Device.objects.filter(pk__in=ids).values_list("pk", "state"))
    leases = PresenceLease.objects.filter(device__in=ids).in_bulk(field_name="device_id")
    ends = {
        connection_id: code
        for connection_id, device_id in connections.items()
        if (code := _end_of(connection_id, states.get(device_id), leases.get(device_id)))
    }
    active = {device_id for device_id in ids if states.get(device_id) == DeviceState.ACTIVE}
    return DeviceStanding(ends, frozenset(active - leases.keys()))


def _end_of(connection_id: str, state: str | None, lease: PresenceLease | None) -> CloseCode | None:
    if state != DeviceState.ACTIVE:
        return CloseCode.DEVICE_BARRED
    if lease is not None and lease.is_duplicate:
        return CloseCode.TOO_MANY
    if lease is not None and lease.connection_id != connection_id:
        return CloseCode.REPLACED
    return None


@cache
def _nobodys_key() -> bytes:
    # An unknown device costs the same verification as a known one.
    return SigningKey.generate().public_key


_NOT_PROVEN = "the device is unknown, or its signature is not its key's"
