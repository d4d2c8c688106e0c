"""Errors that are told: the first at once, equal ones within seconds as one with their number; none is swallowed."""

import msgspec
import pytest

from edge.protocol.server import ErrorNotification
from fl import events
from fl.broadcasts import broadcast_error_notification
from fl.models import ErrorGroup, Event
from fl.notifications import notify, tell_counted
from tests.builders import at

pytestmark = pytest.mark.django_db

ERROR = ErrorNotification(code="disk_full", title="The disk is full", detail="0 bytes are left.", device_id=7, round=3)


@pytest.fixture(autouse=True)
def ten_seconds(settings):
    settings.QFLARE_EQUAL_ERRORS_SECONDS = 10


def say(seconds, stream="system", **changes):
    with events.transaction():
        notify(stream, msgspec.structs.replace(ERROR, **changes), at(seconds))


def told(stream="system"):
    rows = Event.objects.filter(stream=stream).order_by("seq")
    return [(data["count"], data["detail"]) for data in (msgspec.json.decode(row.data) for row in rows)]


def test_the_first_is_told_at_once_and_equal_ones_as_one_when_the_seconds_are_over():
    for second in range(5):
        say(second)
        tell_counted(now=at(second))
    assert told() == [(1, "0 bytes are left.")]

    tell_counted(now=at(10))

    assert told()[1:] == [(4, "4 times more within 10 s. 0 bytes are left.")]


def test_whatever_goes_on_is_told_once_in_so_many_seconds_and_all_are_counted():
    for second in range(60):
        say(second)
        tell_counted(now=at(second))
    tell_counted(now=at(70))

    counts = [count for count, _ in told()]
    assert sum(counts) == 60
    assert len(counts) <= 1 + 70 // 10


def test_without_a_clock_the_next_equal_one_tells_those_before():
    say(0)
    say(1)

    say(30)

    assert told()[1:] == [(2, "2 times more within 30 s. 0 bytes are left.")]


def test_when_it_was_quiet_for_the_seconds_it_is_told_at_once_again_and_nothing_is_kept():
    say(0)
    tell_counted(now=at(10))
    assert not ErrorGroup.objects.exists()

    say(11)

    assert told() == [(1, "0 bytes are left.")] * 2


@pytest.mark.parametrize(
    "changes", [{"code": "other"}, {"title": "Another"}, {"detail": "1 byte is left."}, {"device_id": 8}, {"run_id": 1}]
)
def test_what_differs_is_told_by_itself(changes):
    say(0)

    say(1, **changes)

    assert [count for count, _ in told()] == [1, 1]


def test_another_stream_is_told_by_itself_and_another_round_is_not_another_error():
    say(0)

    say(1, stream="run:1")
    say(2, round=4)

    assert told("run:1") == [(1, "0 bytes are left.")]
    assert len(told()) == 1


def test_what_is_rolled_back_was_never_counted():
    say(0)
    with pytest.raises(RuntimeError), events.transaction():
        notify("system", ERROR, at(1))
        raise RuntimeError

    tell_counted(now=at(10))

    assert len(told()) == 1


def test_a_program_that_reports_the_same_again_and_again_is_counted():
    for _ in range(50):
        broadcast_error_notification("disk_full", {"title": "The disk is full"})

    assert len(told()) == 1
    assert ErrorGroup.objects.get().untold == 49
