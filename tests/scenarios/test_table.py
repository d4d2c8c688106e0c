"""The table has no hole: each of the twenty-five scenarios is tried in each cell, or says why not."""

import pytest

from tests.scenarios import table
from tests.scenarios.results import Results

FROZEN = "tests/scenarios/test_14_to_17_presence.py::test_who_is_behind_a_way_that_froze_is_let_go_and_offline_once"


@pytest.fixture(autouse=True)
def loaded():
    table.load()


def test_every_scenario_is_tried_in_every_cell_or_says_why_not():
    assert table.holes() == []
    assert {one.number for one in table.SCENARIOS.values()} == set(table.NUMBERS)
    assert all(reason for one in table.SCENARIOS.values() for reason in one.not_applicable.values())


def test_the_table_shows_what_workers_report_and_a_part_that_failed_is_a_failure():
    results = Results()
    assert not results
    for cell, parts in {"daphne-memory": [True], "uvicorn-memory": [True, False], "uvicorn-pubsub": [False]}.items():
        for has_passed in parts:
            results.add(f"{FROZEN}[{cell}]", has_passed)

    (row,) = (line.split() for line in results.lines() if line.split()[0] == "17")

    assert results
    assert row[1:7] == ["pass", "-", "FAIL", "FAIL", "n/a", "n/a"]
