"""What scenarios use: the stand of their cell."""

import pytest
from channels.layers import channel_layers

from tests.scenarios.nest import Nest
from tests.scenarios.stand import Stand


@pytest.fixture(scope="session")
def nest():
    """Where servers come from."""
    nest = Nest()
    yield nest
    nest.close()


@pytest.fixture(scope="session")
def server_key_file(tmp_path_factory):
    """Where the server's key of the test's own process lies: making one takes time."""
    return tmp_path_factory.mktemp("server") / "server-key.pem"


@pytest.fixture(autouse=True)
def ground_of_its_own(settings, tmp_path, server_key_file):
    """Files, key and channel layer of the test's process are the test's own."""
    settings.MEDIA_ROOT = tmp_path / "files"
    settings.QFLARE_SERVER_KEY = server_key_file
    settings.QFLARE_SEEN_HEADS = tmp_path / "seen-heads.json"
    channel_layers.backends = {}


@pytest.fixture
def stand(request, nest, transactional_db, tmp_path):
    """The servers of one cell of the table; at the end nothing may be left in them."""
    cell = request.param
    where = {}
    if cell.layer != "memory" and request.function.scenario.own_redis:
        where = {"redis_server": request.getfixturevalue("redis_server")}
    elif cell.layer != "memory":
        where = {"redis_url": request.getfixturevalue("redis_url")}
    stand = Stand(cell, nest, tmp_path, **where)
    yield stand
    stand.stop()
