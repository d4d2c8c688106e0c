"""A house for each journey, as new, out of one that is set up once."""

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
