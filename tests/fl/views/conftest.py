"""People who look at pages."""

import pytest

from tests.builders import person


@pytest.fixture
def viewer(client):
    client.force_login(person("vera", "viewer"))
    return client


@pytest.fixture
def operator(client):
    client.force_login(person("omar", "operator"))
    return client


@pytest.fixture
def admin(client):
    client.force_login(person("ada", "admin"))
    return client
