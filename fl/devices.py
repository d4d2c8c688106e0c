"""Use cases of devices: tokens, enrolment, names and tags, approval and its end, access to HTTP, and presence.

Presence is a lease with a connection id. A row means online; a socket that closes gives the lease a short grace, and
only the close of the newest connection counts, so that a late end of an old socket never turns a new one off.
"""

import hashlib
import hmac
import logging
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import IntegrityError
from django.db.models import Case, F, PositiveBigIntegerField, Q, Value, When
from django.db.models.functions import Greatest
from django.db.transaction import on_commit

from edge.identity import ALGORITHM, fingerprint_of
from edge.protocol import PROTOCOL, server
from edge.protocol.client import Hello, TaskOffer
from edge.protocol.enrollment import TokenText
from edge.protocol.http import EnrollmentRequest
from fl import audit, events, signals
from fl.audit import Subject
from fl.exceptions import (
    Conflict,
    DeviceBarred,
    DevicePending,
    Invalid,
    LostRace,
    TokenExpired,
    TokenRefused,
    Unauthenticated,
    WrongMove,
)
from fl.lifecycle import DEVICE_MOVES, OPEN_ASSIGNMENTS, AssignmentState, DeviceState
from fl.models import Assignment, Device, DeviceTask, EnrollmentToken, PresenceLease
from fl.models.audit import Act
from fl.notifications import notify
from fl.payloads import device_status
from fl.rounds import end_assignment, lock_run, tell_run
from fl.server_key import server_key
from fl.tags import checked_tags

logger = logging.getLogger(__name__)

ML_DSA_65_PUBLIC_KEY_BYTES = 1952
MAX_NUM_EXAMPLES = 2**31 - 1
"""What the column of an offer can hold."""
_ACCESS_SALT = "qflare/v1/access"


# ── enrolment ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def issue_token(
    *, label: str, auto_approve: bool, lifetime: timedelta, created_by: User | None, now: datetime
) -> tuple[EnrollmentToken, TokenText]:
    """Make a token that lets one device in; its text is returned once and never stored.

    Raises:
        Invalid: the lifetime is not positive.
    """
    if lifetime <= timedelta(0):
        raise Invalid("a token must live longer than no time", field="lifetime")
    text = TokenText(id=secrets.token_hex(6), secret=secrets.token_urlsafe(32), fingerprint=server_key().fingerprint)
    with events.transaction():
        token = EnrollmentToken.objects.create(
            token_id=text.id,
            secret_hash=_hash(text.secret),
            label=label,
            auto_approve=auto_approve,
            created_by=created_by,
            created_at=now,
            expires_at=now + lifetime,
        )
        promised = f"until {token.expires_at:%Y-%m-%d %H:%M} UTC{', approves at once' if auto_approve else ''}"
        audit.note(Act.TOKEN_ISSUE, Subject.of(token), by=created_by, now=now, detail=promised)
    return token, text


def withdraw_token(*, token: EnrollmentToken, now: datetime, by: User | None) -> None:
    """Make a token void before a device has used it; nothing of it stays.

    Args:
        by: who withdraws it.

    Raises:
        Conflict: a device has used it, or it was withdrawn already.
    """
    subject = Subject.of(token)
    with events.transaction():
        # The WHERE clause decides between this and a device that comes at the same time.
        withdrawn, _ = EnrollmentToken.objects.filter(pk=token.pk, used_at__isnull=True).delete()
        if not withdrawn:
            raise Conflict(
                f"the token {token} was used or withdrawn already", action="revoke the device, if it must not take part"
            )
        audit.note(Act.TOKEN_WITHDRAW, subject, by=by, now=now)
    logger.info("the enrolment token %s was withdrawn%s", token.token_id, f" by {by.get_username()}" if by else "")


def enroll(*, request: EnrollmentRequest, now: datetime) -> Device:
    """Let a device in; the caller has checked that the request is signed with the key it brings.

    The same request with the same key answers with the same device.

    Raises:
        TokenRefused: the token is unknown, used by another key, or expired.
        Conflict: another device has this name, or this key.
        Invalid: the key, protocol or algorithm is not ours.
    """
    public_key = _checked_public_key(request)
    fingerprint = fingerprint_of(public_key)
    token = _find_token(request.token_id)
    # An unknown token costs the same comparison, so that the time does not tell it from a wrong secret.
    known_hash = token.secret_hash if token else _hash("")
    if not hmac.compare_digest(known_hash, _hash(request.token_secret)) or token is None:
        raise TokenRefused
    if token.device is not None and token.device.fingerprint == fingerprint:
        return token.device
    taken = _taken(f"a device named {request.name.strip()!r}, or one with this key, is enrolled already")
    try:
        with events.transaction():
            # The WHERE clause makes the token work once, however many ask at the same time.
            good = EnrollmentToken.objects.filter(pk=token.pk, used_at__isnull=True, expires_at__gt=now)
            if not good.update(used_at=now):
                return _let_in_meanwhile(token, fingerprint)
            if Device.objects.filter(Q(name=request.name.strip()) | Q(fingerprint=fingerprint)).exists():
                raise taken
            return _let_in(token, request, public_key, now)
    except IntegrityError as error:
        # Another token let a device of this name or key in at the same time.
        raise taken from error


def _taken(what: str) -> Conflict:
    return Conflict(what, action="choose another name", code="device_exists")


def _find_token(token_id: str) -> EnrollmentToken | None:
    # PostgreSQL takes no text with a NUL in it, not even to look for.
    if "\0" in token_id:
        return None
    return EnrollmentToken.objects.filter(token_id=token_id).select_related("device").first()


def _let_in(token: EnrollmentToken, request: EnrollmentRequest, public_key: bytes, now: datetime) -> Device:
    device = Device.objects.create(
        name=request.name.strip(),
        public_key=public_key,
        fingerprint=fingerprint_of(public_key),
        state=DeviceState.ACTIVE if token.auto_approve else DeviceState.PENDING,
        protocol=request.protocol,
        edge_version=_as_shown(request.edge_version),
        enrolled_at=now,
    )
    EnrollmentToken.objects.filter(pk=token.pk).update(device=device)
    events.open_stream(device.stream)
    _announce(device, now)
    return device


def _let_in_meanwhile(token: EnrollmentToken, fingerprint: str) -> Device:
    """Return the device that the same request, sent twice, has just let in."""
    device = Device.objects.filter(enrollment_token=token, fingerprint=fingerprint).first()
    if device is None:
        raise TokenRefused
    return device


def _as_shown(edge_version: str) -> str:
    # It is a device's word for itself: what cannot be shown, or stored at all, as a NUL, is left out.
    return "".join(letter for letter in edge_version if letter.isprintable())[:40]


def _checked_public_key(request: EnrollmentRequest) -> bytes:
    if request.protocol != PROTOCOL:
        raise Invalid(f"this server speaks {PROTOCOL}, not {request.protocol}", field="protocol")
    if request.algorithm != ALGORITHM:
        raise Invalid(f"this server accepts {ALGORITHM} keys, not {request.algorithm}", field="algorithm")
    checked_name(request.name)
    try:
        public_key = b64decode(request.public_key, validate=True)
    except Base64Error as error:
        raise Invalid("the public key is not base64", field="public_key") from error
    if len(public_key) != ML_DSA_65_PUBLIC_KEY_BYTES:
        raise Invalid(
            f"an {ALGORITHM} key has {ML_DSA_65_PUBLIC_KEY_BYTES} bytes, not {len(public_key)}", field="public_key"
        )
    return public_key


# ── its name and tags ─────────────────────────────────────────────────────────────────────────────────────────────────


def checked_name(name: str) -> str:
    """Return a device's name without blanks around it.

    Raises:
        Invalid: it is none that a device can have.
    """
    name = name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise Invalid("a device's name has 1 to 100 characters that can be shown", field="name")
    return name


def rename_device(*, device: Device, name: str, now: datetime, by: User | None) -> Device:
    """Call a device otherwise; cohorts of rounds to come are drawn over the new name.

    Args:
        by: who names it.

    Raises:
        Invalid: the name is none that a device can have.
        Conflict: another device has it.
    """
    name = checked_name(name)
    taken = _taken(f"a device named {name!r} is enrolled already")
    try:
        with events.transaction():
            if Device.objects.filter(name=name).exclude(pk=device.pk).exists():
                raise taken
            return _describe(device, now, by, name=name)
    except IntegrityError as error:
        # Another one took the name at the same time.
        raise taken from error


def tag_device(*, device: Device, tags: Iterable[str], now: datetime, by: User | None) -> Device:
    """Give a device these tags, and no others.

    Args:
        by: who tags it.

    Raises:
        Invalid: there are too many, or one cannot be (see `fl.tags`).
    """
    kept = checked_tags(tags)
    with events.transaction():
        return _describe(device, now, by, tags=kept)


def describe_device(
    *, device: Device, now: datetime, by: User | None, name: str | None = None, tags: Iterable[str] | None = None
) -> Device:
    """Rename and tag a device at once, or neither; what is None stays.

    Raises:
        Invalid: the name or a tag cannot be.
        Conflict: another device has the name.
    """
    with events.transaction():
        if tags is not None:
            device = tag_device(device=device, tags=tags, now=now, by=by)
        return device if name is None else rename_device(device=device, name=name, now=now, by=by)


def _describe(device: Device, now: datetime, by: User | None, **changes: object) -> Device:
    """Write what differs, note it, and tell."""
    known = Device.objects.select_for_update().values(*changes).get(pk=device.pk)
    if known != changes:
        Device.objects.filter(pk=device.pk).update(**changes)
    device.refresh_from_db()
    if known != changes:
        before = ", ".join(f"{name} {value}" for name, value in known.items())
        audit.note(Act.DEVICE_DESCRIBE, Subject.of(device), by=by, now=now, detail=f"before: {before}")
        _announce(device, now)
    return device


# ── a device's state ──────────────────────────────────────────────────────────────────────────────────────────────────


def approve(*, device: Device, now: datetime, by: User | None) -> Device:
    """Let a pending device take part.

    Raises:
        WrongMove: it is not pending.
    """
    act = Act.DEVICE_APPROVE
    return _move(device, (DeviceState.PENDING,), DeviceState.ACTIVE, act, by, reason=_by("approved", by), now=now)


def suspend(*, device: Device, reason: str, now: datetime, by: User | None) -> Device:
    """Bar an active device until it is reinstated; its connection ends and its open assignment is cancelled.

    Raises:
        WrongMove: it is not active.
    """
    why = reason or _by("suspended", by)
    act = Act.DEVICE_SUSPEND
    return _move(device, (DeviceState.ACTIVE,), DeviceState.SUSPENDED, act, by, reason=why, now=now, detail=reason)


def reinstate(*, device: Device, now: datetime, by: User | None) -> Device:
    """Let a suspended device take part again.

    Raises:
        WrongMove: it is not suspended.
    """
    act = Act.DEVICE_REINSTATE
    return _move(device, (DeviceState.SUSPENDED,), DeviceState.ACTIVE, act, by, reason=_by("reinstated", by), now=now)


def revoke(*, device: Device, reason: str, now: datetime, by: User | None) -> Device:
    """Bar a device for good; its connection ends and its open assignment is cancelled.

    Raises:
        WrongMove: it is revoked already.
    """
    allowed = tuple(state for state, moves in DEVICE_MOVES.items() if DeviceState.REVOKED in moves)
    why = reason or _by("revoked", by)
    return _move(device, allowed, DeviceState.REVOKED, Act.DEVICE_REVOKE, by, reason=why, now=now, detail=reason)


def _by(what: str, by: User | None) -> str:
    return f"{what} by {by.get_username()}" if by else ""


def _move(
    device: Device,
    allowed: tuple[DeviceState, ...],
    state: DeviceState,
    act: Act,
    by: User | None,
    *,
    reason: str,
    now: datetime,
    detail: str = "",
) -> Device:
    with events.transaction():
        moved = Device.objects.filter(pk=device.pk, state__in=allowed).update(state=state, state_reason=reason[:500])
        device.refresh_from_db()
        if not moved:
            raise WrongMove(f"the device {device.name}", current=device.state, wanted=state)
        audit.note(act, Subject.of(device), by=by, now=now, detail=detail)
        if state is not DeviceState.ACTIVE:
            _cancel_assignment(device, reason=f"the device was {state}", now=now)
            on_commit(partial(signals.device_barred.send_robust, None, device_id=device.pk, reason=reason), robust=True)
        _announce(device, now)
        events.wake_coordinators()
    return device


def _cancel_assignment(device: Device, *, reason: str, now: datetime) -> None:
    open_one = (
        Assignment.objects.filter(device=device, state__in=OPEN_ASSIGNMENTS).select_related("round", "device").first()
    )
    if open_one is None:
        return
    run = lock_run(open_one.round.run_id)
    try:
        end_assignment(open_one, AssignmentState.CANCELLED, reason=reason, now=now)
    except LostRace:
        # Its update was accepted, or its round closed, in this very moment: there is nothing left to cancel.
        return
    tell_run(run, now)


def cancel_for_barred(*, now: datetime) -> None:
    """Cancel what barred devices still are to do.

    One may be barred in the very moment in which it is selected: of two transactions neither sees the other.
    """
    for device in Device.objects.filter(assignments__state__in=OPEN_ASSIGNMENTS).exclude(state=DeviceState.ACTIVE):
        with events.transaction():
            _cancel_assignment(device, reason=f"the device is {device.state}", now=now)
            events.wake_coordinators()


def _announce(device: Device, now: datetime) -> None:
    events.record(events.SYSTEM, device_status(device), now)


# ── access by HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


def access_token(*, device: Device, now: datetime) -> server.AccessToken:
    """Return a bearer token for HTTP, good for QFLARE_DEVICE_TOKEN_SECONDS, whatever becomes of the socket."""
    expires_at = now + timedelta(seconds=settings.QFLARE_DEVICE_TOKEN_SECONDS)
    token = signing.Signer(salt=_ACCESS_SALT).sign_object({"device": device.pk, "until": int(expires_at.timestamp())})
    return server.AccessToken(token=token, expires_at=expires_at)


def device_of_token(*, token: str, now: datetime) -> Device:
    """Return the device that a bearer token is for; its state is looked up at each request.

    Raises:
        Unauthenticated: the token is not ours, or its device is gone.
        TokenExpired: it is past its time.
        DeviceBarred: the device is not active.
    """
    return active_device(device_in_token(token=token, now=now))


def device_in_token(*, token: str, now: datetime) -> int:
    """Return the number of the device that a bearer token was made for, without a look at what it is now.

    Raises:
        Unauthenticated: the token is not ours.
        TokenExpired: it is past its time.
    """
    try:
        content = signing.Signer(salt=_ACCESS_SALT).unsign_object(token)
    except signing.BadSignature as error:
        raise _unknown_token() from error
    if now.timestamp() >= content["until"]:
        raise TokenExpired("this bearer token has expired", action="use the one that came with the newest heartbeat")
    return int(content["device"])


def active_device(device_id: int) -> Device:
    """Return the device of this number, as a token of it names one.

    Raises:
        Unauthenticated: it is gone.
        DeviceBarred: it is not active.
    """
    device = Device.objects.filter(pk=device_id).first()
    if device is None:
        raise _unknown_token()
    check_active(device)
    return device


def check_active(device: Device) -> None:
    """Check that a device may do what its token lets it do.

    Raises:
        DeviceBarred: it is not active.
    """
    if device.state != DeviceState.ACTIVE:
        raise DeviceBarred(f"the device {device.name} is {device.state}", action="ask an operator")


def _unknown_token() -> Unauthenticated:
    return Unauthenticated("this bearer token is not valid", action="connect by WebSocket to get one")


# ── presence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def connected(
    *,
    device_id: int,
    connection_id: str,
    instance: str,
    hello: Hello,
    now: datetime,
    serving_since: datetime | None = None,
) -> Device:
    """Give a device that has proved its key the lease of its new connection, and take note of what it offers.

    An older connection of it is told to end (`signals.device_replaced`): the newest wins. When that happens again and
    again within QFLARE_REPLACEMENTS_WITHIN_SECONDS, two devices use one identity: people are told, and all its
    connections end for a while (`signals.device_duplicated`).

    Args:
        serving_since: when the server process began; a connection that another one took before may have died with it.

    Raises:
        DeviceBarred: the device is not active.
        Invalid: an offer is none that a device can make.
    """
    for offer in hello.tasks:
        _check_offer(offer)
    with events.transaction():
        # The UPDATE is the lock: two connections of one device take their turns.
        active = Device.objects.filter(pk=device_id, state=DeviceState.ACTIVE)
        version = _as_shown(hello.edge_version)
        if not active.update(last_heard_at=now, edge_version=version, protocol=hello.protocol[:20]):
            device = Device.objects.filter(pk=device_id).first()
            state = device.state if device else "unknown"
            if state == DeviceState.PENDING:
                raise DevicePending("the device is pending: it waits for approval", action="ask an operator")
            raise DeviceBarred(f"the device is {state}", action="ask an operator")
        device = Device.objects.get(pk=device_id)
        news = _take_lease(device, connection_id, instance, now, serving_since)
        news |= _take_offers(device, hello)
        if news:
            _announce(Device.objects.get(pk=device_id), now)
        events.wake_coordinators()
    return device


def _take_lease(
    device: Device, connection_id: str, instance: str, now: datetime, serving_since: datetime | None
) -> bool:
    """Give the lease to a connection; say whether the device was offline before."""
    older = PresenceLease.objects.filter(device=device).first()
    may_be_dead = (
        older is not None
        and older.instance != instance
        and serving_since is not None
        and older.connected_at < serving_since
    )
    since, count, is_duplicate = _count_replacement(device, older, now, counts=not may_be_dead)
    # Whether there was one is asked of the write itself: a sweep may have ended it, and said so, since we looked.
    _, was_offline = PresenceLease.objects.update_or_create(
        device=device,
        defaults={
            "connection_id": connection_id,
            "instance": instance,
            "connected_at": now,
            "lease_until": now + timedelta(seconds=settings.QFLARE_LEASE_SECONDS),
            "closed_at": None,
            "replaced_since": since,
            "replacements": count,
            "is_duplicate": is_duplicate,
        },
    )
    return was_offline


def _count_replacement(
    device: Device, older: PresenceLease | None, now: datetime, *, counts: bool
) -> tuple[datetime | None, int, bool]:
    """See to the end of the connection that is replaced, if it lives.

    Returns:
        Since when replacements are counted, how many there were, and whether this was one too many.
    """
    if older is None:
        return None, 0, False
    if older.closed_at is not None:
        return older.replaced_since, older.replacements, False
    since, count = older.replaced_since, older.replacements + counts
    if since is None or now - since > timedelta(seconds=settings.QFLARE_REPLACEMENTS_WITHIN_SECONDS):
        since, count = now, int(counts)
    if count <= settings.QFLARE_MAX_REPLACEMENTS:
        replaced = partial(signals.device_replaced.send_robust, None, connection_id=older.connection_id)
        on_commit(partial(replaced, device_id=device.pk), robust=True)
        return since, count, False
    Device.objects.filter(pk=device.pk).update(duplicated_at=now)
    _tell_of_duplicates(device, now)
    on_commit(partial(signals.device_duplicated.send_robust, None, device_id=device.pk), robust=True)
    return None, 0, True


def _tell_of_duplicates(device: Device, now: datetime) -> None:
    notify(
        events.SYSTEM,
        server.ErrorNotification(
            code="duplicate_identity",
            title=f"{device.name} connects again and again while it is connected",
            detail="Most likely two devices use one key: a copied folder, or one device started twice.",
            action="Find and stop the second one. If the key was stolen, revoke the device.",
            device_id=device.pk,
        ),
        now,
    )


def _check_offer(offer: TaskOffer) -> None:
    texts = (offer.task, offer.digest, *offer.supports)
    if not all(1 <= len(text) <= 100 and text.isprintable() for text in texts) or len(offer.digest) > 64:
        raise Invalid("a task's name, digest and supports are short texts that can be shown", field="tasks")
    if not 0 <= offer.num_examples <= MAX_NUM_EXAMPLES:
        raise Invalid(f"num_examples of {offer.task} must be between 0 and {MAX_NUM_EXAMPLES:,}", field="tasks")


def _take_offers(device: Device, hello: Hello) -> bool:
    """Store the tasks a device offers; say whether they differ from those it offered before."""
    offers = {offer.task: (offer.digest, offer.num_examples, sorted(offer.supports)) for offer in hello.tasks}
    known = {row.task: (row.digest, row.num_examples, row.supports) for row in device.tasks.all()}
    if offers == known:
        return False
    device.tasks.all().delete()
    DeviceTask.objects.bulk_create(
        DeviceTask(device=device, task=task, digest=digest, num_examples=num_examples, supports=supports)
        for task, (digest, num_examples, supports) in sorted(offers.items())
    )
    return True


def heard_from(*, connection_ids: Collection[str], now: datetime) -> None:
    """Renew the leases of many connections at once."""
    alive = PresenceLease.objects.filter(connection_id__in=connection_ids, closed_at__isnull=True)
    Device.objects.filter(lease__in=alive).update(last_heard_at=now)
    alive.update(lease_until=now + timedelta(seconds=settings.QFLARE_LEASE_SECONDS))


def still_connected(*, connections: Mapping[int, str], instance: str, now: datetime) -> None:
    """Give devices that are connected and have no lease one again, and announce them online.

    A lease is swept when nobody could renew it, such as while its process stood still; the device, whose socket never
    closed, would else be offline until it happens to come again.

    Args:
        connections: device id → id of its connection.
    """
    for device_id, connection_id in sorted(connections.items()):
        with events.transaction():
            # The same lock as in `connected`: a connection that is newer has its lease, and keeps it.
            if not Device.objects.filter(pk=device_id, state=DeviceState.ACTIVE).update(last_heard_at=now):
                continue
            _, is_new = PresenceLease.objects.get_or_create(
                device_id=device_id,
                defaults={
                    "connection_id": connection_id,
                    "instance": instance,
                    "connected_at": now,
                    "lease_until": now + timedelta(seconds=settings.QFLARE_LEASE_SECONDS),
                },
            )
            if is_new:
                _announce(Device.objects.get(pk=device_id), now)
                events.wake_coordinators()


def disconnected(*, connection_id: str, now: datetime) -> None:
    """Take note that a connection closed; the device is announced offline when the grace runs out without a new one."""
    grace = timedelta(seconds=settings.QFLARE_PRESENCE_GRACE_SECONDS)
    closed = PresenceLease.objects.filter(connection_id=connection_id, closed_at__isnull=True)
    if closed.update(closed_at=now, lease_until=now + grace):
        events.wake_coordinators()


def expire_leases(*, now: datetime) -> int:
    """Announce the devices offline whose leases ran out, each once, whoever else sweeps; return how many."""
    expired = 0
    for lease in PresenceLease.objects.filter(lease_until__lte=now).order_by("device_id"):
        with events.transaction():
            gone, _ = PresenceLease.objects.filter(
                pk=lease.pk, connection_id=lease.connection_id, lease_until__lte=now
            ).delete()
            if gone:
                expired += 1
                _announce(Device.objects.get(pk=lease.device_id), now)
                events.wake_coordinators()
    return expired


def shorten_leases(*, now: datetime) -> None:
    """See to it that no lease ends later than one that is given now: a clock that was ahead has given it."""
    until = now + timedelta(seconds=settings.QFLARE_LEASE_SECONDS)
    PresenceLease.objects.filter(lease_until__gt=until).update(lease_until=until)


def acknowledge(*, seqs: Mapping[int, int]) -> None:
    """Take note of how far devices, by their ids, know their own streams; older acknowledgements change nothing."""
    told = Case(
        *(When(pk=device_id, then=Value(seq)) for device_id, seq in seqs.items()),
        output_field=PositiveBigIntegerField(),
    )
    Device.objects.filter(pk__in=seqs).update(acked_seq=Greatest(F("acked_seq"), told))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
