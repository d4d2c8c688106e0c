"""Which devices a person should look at, and why: pure, no queries and no clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext

from fl.lifecycle import AssignmentState, DeviceState

OUTCOMES = frozenset({AssignmentState.ACCEPTED, AssignmentState.REJECTED, AssignmentState.FAILED})
"""How an assignment ends by what its device did; the newest of these says whether the device is well."""

DUPLICATE_STAYS = timedelta(days=1)
"""For how long a device stands out whose key two devices used."""


@dataclass(frozen=True)
class DeviceFacts:
    """What one needs to know of a device to say whether something is wrong with it.

    Attributes:
        open_round: number of the round that it has an open assignment in.
        outcome, outcome_reason: how the newest of its assignments ended that had an outcome, and why.
        duplicated_at: when two devices were last seen to use its key.
    """

    state: str
    state_reason: str = ""
    is_online: bool = False
    open_round: int | None = None
    outcome: str | None = None
    outcome_reason: str = ""
    duplicated_at: datetime | None = None


def attention(facts: DeviceFacts, now: datetime) -> tuple[str, ...]:
    """Return why a person should look at a device, in words, the most urgent first; nothing where all is well.

    A device that is revoked is done with.
    """
    return () if facts.state == DeviceState.REVOKED else tuple(_reasons(facts, now))


def _reasons(facts: DeviceFacts, now: datetime) -> Iterator[str]:
    if facts.duplicated_at is not None and now - facts.duplicated_at < DUPLICATE_STAYS:
        yield gettext("two devices use its key")
    if facts.state == DeviceState.PENDING:
        yield gettext("waits for approval")
    if facts.state == DeviceState.SUSPENDED:
        yield _with(gettext("suspended"), facts.state_reason)
    if facts.open_round is not None and not facts.is_online:
        yield gettext("went offline with its part of round {round} still to do").format(round=facts.open_round)
    if facts.outcome == AssignmentState.REJECTED:
        yield _with(gettext("its last update was rejected"), facts.outcome_reason)
    if facts.outcome == AssignmentState.FAILED:
        yield _with(gettext("it could not train when last asked"), facts.outcome_reason)


def _with(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what
