"""How long events are kept: while one can resume from them, while they are young, and those of runs always."""

from datetime import timedelta

import pytest

from edge.protocol.server import ErrorNotification
from fl import events, sweeping
from fl.models import Event
from tests.builders import NOW

pytestmark = pytest.mark.django_db


def record(stream, *ages_in_days):
    """Record an event of each age, in this order."""
    for age in ages_in_days:
        with events.transaction():
            events.record(stream, ErrorNotification(code="x", title=f"{age} days"), NOW - timedelta(days=age))


def kept(stream):
    return list(Event.objects.filter(stream=stream).order_by("seq").values_list("seq", flat=True))


@pytest.fixture(autouse=True)
def short_window(settings):
    settings.QFLARE_RESUME_EVENTS = 2
    settings.QFLARE_RESUME_HOURS = 24
    settings.QFLARE_EVENT_DAYS = 90


@pytest.mark.parametrize("stream", ["system", "device:7", "audience:general"])
def test_events_past_their_time_go_and_the_newest_stay_however_old(stream):
    record(stream, 400, 300, 200, 100)

    assert events.prune(now=NOW) == 2

    assert kept(stream) == [3, 4]


def test_events_that_are_young_enough_stay_however_many():
    record("system", 91, 89, 50, 3, 2, 1)

    events.prune(now=NOW)

    assert kept("system") == [2, 3, 4, 5, 6]


def test_the_events_of_a_run_stay_as_long_as_the_run():
    record("run:1", 400, 300, 200, 100)

    assert events.prune(now=NOW) == 0


def test_a_day_can_be_resumed_even_where_nothing_is_to_be_stored(settings):
    settings.QFLARE_EVENT_DAYS = 0
    record("system", 3, 2, 0.9, 0.5, 0.1)

    events.prune(now=NOW)

    assert kept("system") == [3, 4, 5]


def test_a_clock_that_stepped_back_makes_no_hole():
    record("system", 200, 10, 200, 10, 9, 8)

    events.prune(now=NOW)

    assert kept("system") == [2, 3, 4, 5, 6]


def test_much_is_deleted_in_pieces_and_what_is_too_much_for_a_turn_waits_for_the_next(monkeypatch):
    monkeypatch.setattr(events, "PRUNED_AT_ONCE", 2)
    monkeypatch.setattr(events, "PRUNED_IN_A_TURN", 4)
    record("system", *[100] * 9)

    turns = [events.prune(now=NOW) for _ in range(3)]

    assert turns == [4, 3, 0]
    assert kept("system") == [8, 9]


def test_what_was_pruned_is_counted_no_less():
    record("system", 100, 100, 100)
    events.prune(now=NOW)

    record("system", 1)

    assert kept("system") == [2, 3, 4]


def test_sweeping_prunes():
    record("system", 100, 100, 100)

    sweeping.sweep(now=NOW)

    assert kept("system") == [2, 3]
