"""The core's rules hold on PostgreSQL too: the same tests, run there by a pytest of its own."""

import os
import subprocess
import sys

import pytest

from tests.test_house import ROOT

# Those in which a database decides: who comes first, what is refused, what is seen at one moment. Of the log itself,
# test_event_writers says the same with processes.
MODULES = [
    "audit",
    "coordination",
    "coordinator",
    "devices",
    "histories",
    "models",
    "people",
    "prepared",
    "retention",
    "snapshots",
    "trash",
    "updates",
]


@pytest.fixture
def environment(postgres_database, tmp_path):
    """The environment of tests whose database is the given PostgreSQL."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return others | {"DATABASE_URL": postgres_database, "QFLARE_DATA_DIR": str(tmp_path / "data")}


def test_the_core_keeps_its_rules_on_postgresql(environment):
    # The median of each device's times, and what stands in JSON, each kind of database reads in its own way.
    pages = ["views/test_run_devices", "queries/test_events", "queries/test_run_list"]
    modules = [f"tests/fl/{module}.py" for module in (*(f"test_{name}" for name in MODULES), *pages)]

    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *modules],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout[-20_000:]
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout
