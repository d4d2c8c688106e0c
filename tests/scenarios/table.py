"""The table of the hard scenarios: each by number, on each kind of server, on each channel layer.

    @scenario(10, "a slow query delays nobody's broadcasts")
    def test_while_a_consumer_waits_for_the_database_all_others_are_told(stand): ...

runs the test in each cell. A cell where a scenario means nothing is named with the reason: `na={"memory": "…"}`.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.realtime.servers import OURS

NUMBERS = range(1, 26)
SEED = int(os.environ.get("QFLARE_TEST_SEED", "20261124"))
"""What is left to chance is drawn from it."""
CORE_ASKED_FOR = {2, 12, 13}
"""Scenarios of what the other Redis layer does by itself: it has a capacity, and it forgets members."""
ENOUGH = "the layer's own traps are in 2, 12 and 13"


class Cell(NamedTuple):
    """A kind of server on a channel layer."""

    server: str
    layer: str

    def __str__(self):
        return f"{self.server}-{self.layer}"


CELLS = [*(Cell(*pair) for pair in product(OURS, ("memory", "pubsub"))), *(Cell(server, "core") for server in OURS)]


@dataclass(frozen=True)
class Scenario:
    """What a test shows, and where.

    Attributes:
        number: of the twenty-five.
        rule: what holds, in a line of the table.
        not_applicable: cell → why it means nothing there.
        own_redis: the test wants a Redis that it may stop: `stand.redis`.
    """

    number: int
    rule: str
    not_applicable: dict[Cell, str] = field(default_factory=dict)
    own_redis: bool = False


SCENARIOS: dict[str, Scenario] = {}
"""By the test's name."""


def scenario(number, rule, *, core=False, own_redis=False, na=None):
    """Run a test in each cell of the table.

    Args:
        core: also on the Redis layer that is not the product's own choice.
        own_redis: give the test a Redis of its own, where its layer is on one.
        na: layer (or server) → why the test means nothing there.
    """
    reasons = {} if core else {"core": ENOUGH}
    reasons |= na or {}
    nowhere = {cell: reasons[part] for cell in CELLS for part in cell if part in reasons}

    def register(test):
        test.scenario = SCENARIOS[f"{test.__module__}.{test.__name__}"] = Scenario(number, rule, nowhere, own_redis)
        cells = [cell for cell in CELLS if cell not in nowhere]
        return pytest.mark.parametrize("stand", cells, ids=map(str, cells), indirect=True)(test)

    return register


def load():
    """Import all modules with scenarios, so that SCENARIOS has them."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        import_module(f"tests.scenarios.{path.stem}")


def holes():
    """Return the cells of the table that neither a test nor a reason fills, and those that a reason must not fill."""
    ours = {number: [one for one in SCENARIOS.values() if one.number == number] for number in NUMBERS}
    empty = [(number, "all") for number in NUMBERS if not ours[number]]
    for number in CORE_ASKED_FOR:
        if not any(cell not in one.not_applicable for one in ours[number] for cell in CELLS if cell.layer == "core"):
            empty.append((number, "core"))
    return sorted(empty)


def reasons():
    """Return why cells are empty: reason → numbers and layers."""
    found = defaultdict(set)
    for one in SCENARIOS.values():
        for cell, reason in one.not_applicable.items():
            found[reason].add((one.number, str(cell)))
    by_cells = {}
    for reason, places in found.items():
        numbers = sorted({number for number, _ in places})
        cells = sorted({cell for _, cell in places})
        by_cells[reason] = f"{', '.join(map(str, numbers))} ({', '.join(cells)})"
    return by_cells
