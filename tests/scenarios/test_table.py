"""The table has no hole: each of the twenty-five scenarios is tried in each cell, or says why not."""

from importlib import import_module
from pathlib import Path

from tests.scenarios import table


def test_every_scenario_is_tried_in_every_cell_or_says_why_not():
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        import_module(f"tests.scenarios.{path.stem}")

    assert table.holes() == []
    assert {one.number for one in table.SCENARIOS.values()} == set(table.NUMBERS)
    assert all(reason for one in table.SCENARIOS.values() for reason in one.not_applicable.values())
