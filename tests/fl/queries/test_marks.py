"""What a learning curve is marked with."""

import pytest

from fl import runs
from fl.queries.marks import pauses_of
from tests.builders import at, fleet, person, started_run, step

pytestmark = pytest.mark.django_db


def test_a_pause_is_marked_once_with_who_and_in_which_round():
    first, second = fleet(2)
    run = started_run(cohort_size=2)
    step(run)
    runs.pause_run(run=run, now=at(5), by=person("omar", "operator"))
    for device in (first, second):
        device.send(now=at(6))
    step(run, at(7))

    (mark,) = pauses_of(run)

    assert (mark.round, mark.at) == (1, at(5))
    assert mark.text == "paused by omar"


def test_a_run_that_was_never_paused_has_no_mark():
    assert pauses_of(started_run()) == []
