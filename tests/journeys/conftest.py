"""Houses for journeys: one as new for each test that needs it so, and one that many tests share."""

import pytest

from tests.journeys.house import make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A house with enrolled devices and a signed-in person, nothing running."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def house(template, tmp_path):
    """A house of this test's own, nothing running yet; what is started in it ends with the test."""
    with template.copy_to(tmp_path / "house") as house:
        yield house


@pytest.fixture(scope="session")
def shared_house(template, tmp_path_factory):
    with template.copy_to(tmp_path_factory.mktemp("shared") / "house") as house:
        house.serve()
        house.fleet(2, JOURNEY_HOLD=str(house.hold))
        house.wait_until_online(1, 2)
        yield house


@pytest.fixture
def shared(shared_house):
    """A house with a live server, and devices 1 and 2 at work; runs and programs of the test end with it.

    The two devices wait in their training for as long as the test holds them (`with shared.held():`).
    """
    started = len(shared_house.programs)
    yield shared_house
    shared_house.let_go()
    shared_house.stop_runs()
    for program in shared_house.programs[started:]:
        if program is not shared_house.server:
            program.stop()
