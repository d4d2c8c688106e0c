"""Sign-in codes: what a link in a terminal holds in its fragment, exchanged once for a session."""

import hashlib
import secrets
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction

from fl.exceptions import NotAllowed
from fl.models import SignInCode

SIGN_IN_CODE_LIFETIME = timedelta(minutes=10)


def issue_sign_in_code(*, user: User, now: datetime) -> str:
    """Return a code that signs this person in once, within ten minutes; only its hash is kept."""
    code = secrets.token_urlsafe(32)
    SignInCode.objects.create(user=user, code_hash=_hash(code), created_at=now, expires_at=now + SIGN_IN_CODE_LIFETIME)
    return code


@transaction.atomic
def redeem_sign_in_code(*, code: str, now: datetime) -> User:
    """Use a code up and return the person it is for.

    Raises:
        NotAllowed: it is unknown, used or expired, or the person is not active; which one is not told.
    """
    # A join would put all conditions into a subquery, which PostgreSQL does not ask again once it has waited for the
    # row: whether the code is used must be asked of the row itself.
    open_codes = SignInCode.objects.filter(
        code_hash=_hash(code), used_at__isnull=True, expires_at__gt=now, user__in=User.objects.filter(is_active=True)
    )
    if not open_codes.update(used_at=now):
        raise NotAllowed("this sign-in link is not valid", action="ask for a new link, or sign in with a password")
    return User.objects.get(pk=SignInCode.objects.values_list("user_id", flat=True).get(code_hash=_hash(code)))


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
