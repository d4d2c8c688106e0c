"""Spans of time in which a device was online, from what its statuses tell."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fl.presence import MIXED, OFFLINE, ONLINE, UNKNOWN, Change, share_online, slots, spans, told_changes
from tests.builders import at

SINCE, UNTIL = at(0), at(100)


def change(seconds, presence, state="active", reason=""):
    return Change(at=at(seconds), presence=presence, state=state, reason=reason)


def found(*changes, before=UNKNOWN):
    made = spans(changes, before=before, since=SINCE, until=UNTIL)
    return [(span.presence, (span.start - SINCE).total_seconds(), (span.end - SINCE).total_seconds()) for span in made]


def test_without_a_word_nothing_is_known():
    assert found() == [(UNKNOWN, 0, 100)]


def test_each_change_ends_a_span_and_begins_one():
    assert found(change(10, ONLINE), change(40, OFFLINE), before=OFFLINE) == [
        (OFFLINE, 0, 10),
        (ONLINE, 10, 40),
        (OFFLINE, 40, 100),
    ]


def test_a_status_that_tells_the_same_presence_ends_nothing():
    assert found(change(10, ONLINE), change(20, ONLINE), change(30, ONLINE, reason="renamed")) == [
        (UNKNOWN, 0, 10),
        (ONLINE, 10, 100),
    ]


def test_a_change_that_took_no_time_is_not_drawn():
    assert found(change(10, OFFLINE), change(10, ONLINE), before=ONLINE) == [(ONLINE, 0, 100)]


@given(
    some.lists(some.tuples(some.integers(-50, 150), some.sampled_from([ONLINE, OFFLINE]))),
    some.sampled_from([ONLINE, OFFLINE, UNKNOWN]),
)
def test_spans_touch_cover_the_whole_time_and_neighbours_differ(told, before):
    made = spans([change(*each) for each in told], before=before, since=SINCE, until=UNTIL)

    assert (made[0].start, made[-1].end) == (SINCE, UNTIL)
    assert all(left.end == right.start and left.presence != right.presence for left, right in pairwise(made))
    assert all(span.seconds > 0 for span in made)


def test_the_share_is_of_the_time_of_which_something_is_known():
    made = spans([change(20, ONLINE), change(60, OFFLINE)], before=UNKNOWN, since=SINCE, until=UNTIL)

    assert share_online(made) == pytest.approx(0.5)
    assert share_online(spans([], before=UNKNOWN, since=SINCE, until=UNTIL)) is None


def test_few_spans_are_drawn_as_they_are_and_many_as_equal_pieces():
    few = spans([change(20, ONLINE)], before=OFFLINE, since=SINCE, until=UNTIL)
    flapping = [change(50 + tenth / 10, ONLINE if tenth % 2 else OFFLINE) for tenth in range(100)]
    many = spans(flapping, before=ONLINE, since=SINCE, until=UNTIL)

    drawn = slots(many, 10)

    assert slots(few, 10) == few
    assert (drawn[0].start, drawn[-1].end) == (SINCE, UNTIL)
    assert [span.presence for span in drawn] == [ONLINE, MIXED, ONLINE]
    assert all(left.end == right.start for left, right in pairwise(drawn))


def test_a_status_that_tells_nothing_new_is_no_change():
    told = [
        change(1, ONLINE),
        change(2, ONLINE),
        change(3, ONLINE, "suspended", "why"),
        change(4, OFFLINE, "suspended"),
    ]

    assert told_changes(told) == [told[0], told[2], told[3]]
    assert told_changes(told, before=change(0, ONLINE)) == [told[2], told[3]]
