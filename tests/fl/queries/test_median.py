"""The usual duration of a run's rounds: that of those which were completed."""

import pytest

from fl.queries.runs import median_seconds
from fl.round_lines import RoundLine


def line(number, seconds, state="completed"):
    return RoundLine(number=number, state=state, duration_seconds=seconds)


@pytest.mark.parametrize(
    ("lines", "median"),
    [
        ([], None),
        ([line(0, None, "initial"), line(1, None, "training")], None),
        ([line(1, 20.0), line(2, 600.0, "failed"), line(3, 22.0), line(4, 600.0, "stopped")], 21.0),
        ([line(1, 0.0), line(2, 5.0), line(3, 9.0)], 5.0),
    ],
    ids=["no round", "none completed yet", "some failed", "one took no time"],
)
def test_only_completed_rounds_count(lines, median):
    assert median_seconds(lines) == median
