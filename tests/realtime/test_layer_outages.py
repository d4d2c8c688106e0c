"""Of an outage of the channel layer people are told once, however many processes notice, and once that it is over."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from fl.models import Event
from realtime import layer_outages
from realtime.models import LayerOutage, ServerProcess
from tests.fl.threads import at_once


@pytest.fixture
def now():
    return timezone.now()


def begin(instance, now):
    return layer_outages.begin(instance=instance, started_at=now, why="nobody answers", now=now)


def end(instance, now):
    return layer_outages.end(instance=instance, now=now)


def told():
    return Event.objects.filter(stream="system").count()


def test_of_several_processes_one_tells_and_the_last_to_be_well_tells_the_end(db, now):
    assert [begin(name, now) for name in ("anna", "berta", "anna")] == [True, False, False]
    assert told() == 1

    assert [end(name, now) for name in ("anna", "anna")] == [False, False]
    assert not begin("berta", now)
    assert told() == 1

    assert end("berta", now)
    assert end("anna", now)
    assert told() == 2
    assert not LayerOutage.objects.exists()


def test_to_notice_what_others_have_noticed_is_no_error_of_the_database(db, now):
    failed = []

    def note_failures(execute, sql, parameters, many, context):
        try:
            return execute(sql, parameters, many, context)
        except DatabaseError as error:  # of which Django keeps the last one, and with it all that was at work
            failed.append(error)
            raise

    with connection.execute_wrapper(note_failures):
        assert [begin(name, now) for name in ("anna", "berta", "anna")] == [True, False, False]

    assert failed == []


def test_a_process_that_died_without_the_layer_does_not_hold_up_the_end(db, now):
    begin("anna", now)
    later = now + timedelta(minutes=5)

    assert ServerProcess.objects.get().layer_is_away
    assert end("berta", later)

    assert told() == 2


def test_where_there_was_no_outage_nothing_is_told(db, now):
    assert end("anna", now)

    assert told() == 0


def test_processes_that_notice_at_the_same_moment_tell_once(transactional_db, now):
    found = at_once(*[lambda name=name: begin(name, now) for name in ("anna", "berta", "carla", "dora")])

    assert sorted(found) == [False, False, False, True]
    assert told() == 1


def test_processes_that_are_well_at_the_same_moment_tell_the_end_once(transactional_db, now):
    names = ("anna", "berta", "carla")
    for name in names:
        begin(name, now)

    at_once(*[lambda name=name: end(name, now) for name in names])
    # Each may have seen another that was about to say so; all of them say it again until it is over.
    assert all(end(name, now) for name in names)

    assert told() == 2
