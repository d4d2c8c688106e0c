"""Which devices stand out, and the words that say why."""

from datetime import timedelta

import pytest

from fl.attention import DUPLICATE_STAYS, DeviceFacts, attention
from fl.lifecycle import AssignmentState, DeviceState
from tests.builders import NOW, at


def reasons(now=NOW, **facts):
    return attention(DeviceFacts(**{"state": DeviceState.ACTIVE, **facts}), now)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"is_online": True},
        {"is_online": True, "open_round": 3},
        {"outcome": AssignmentState.ACCEPTED},
        {"state": DeviceState.REVOKED, "outcome": AssignmentState.REJECTED, "duplicated_at": NOW},
    ],
)
def test_a_device_that_is_well_or_done_with_stands_out_for_nothing(facts):
    assert reasons(**facts) == ()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"state": DeviceState.PENDING}, "waits for approval"),
        ({"state": DeviceState.SUSPENDED}, "suspended"),
        ({"state": DeviceState.SUSPENDED, "state_reason": "too noisy"}, "suspended: too noisy"),
        ({"open_round": 3}, "went offline with its part of round 3 still to do"),
        (
            {"outcome": AssignmentState.REJECTED, "outcome_reason": "not finite"},
            "its last update was rejected: not finite",
        ),
        (
            {"outcome": AssignmentState.FAILED, "outcome_reason": "no data"},
            "it could not train when last asked: no data",
        ),
        ({"duplicated_at": NOW}, "two devices use its key"),
    ],
)
def test_what_is_wrong_is_said_in_words(facts, words):
    assert reasons(**facts) == (words,)


def test_all_that_is_wrong_is_said():
    found = reasons(open_round=2, outcome=AssignmentState.REJECTED, duplicated_at=NOW)

    assert len(found) == 3


def test_a_double_use_of_a_key_stands_out_for_a_day():
    almost = NOW + DUPLICATE_STAYS - timedelta(seconds=1)

    assert reasons(almost, duplicated_at=NOW)
    assert not reasons(at(DUPLICATE_STAYS.total_seconds()), duplicated_at=NOW)
