"""What every test of the sockets may use: a layer of its own, a process that is stopped at the end, short intervals."""

import asyncio

import pytest
from channels.layers import channel_layers
from django.conf import settings as project_settings
from django.db import connection

from realtime import publishing
from realtime.process import running_process
from tests.realtime.layers import PUBSUB
from tests.realtime.raw import drop_all
from tests.realtime.servers import ENVIRONMENT, start_server
from tests.realtime.sockets import open_sockets


@pytest.fixture(scope="session")
def server_key_file(tmp_path_factory):
    """Where the server's key lies for all tests of a run: making one takes time."""
    return tmp_path_factory.mktemp("server") / "server-key.pem"


@pytest.fixture(autouse=True)
def ground_of_its_own(settings, tmp_path, server_key_file):
    """Files, key and channel layer are the test's own."""
    settings.MEDIA_ROOT = tmp_path / "files"
    settings.QFLARE_SERVER_KEY = server_key_file
    settings.QFLARE_SEEN_HEADS = tmp_path / "seen-heads.json"
    channel_layers.backends = {}


@pytest.fixture(autouse=True)
def no_socket_is_left():
    """Close the raw sockets that a test has left open."""
    yield
    drop_all()


@pytest.fixture
async def loop(transactional_db):
    """The test's loop as a server's: what is published is sent from it, and nothing is left of it at the end."""
    publishing.use_loop(asyncio.get_running_loop())
    yield asyncio.get_running_loop()
    for socket in list(open_sockets):
        await socket.leave()
    process = running_process()
    if process is not None:
        assert process.hub.connections() == []
        assert process.connections == process.people == process.devices == {}
        await process.stop()


@pytest.fixture
def redis_layer(request, settings, redis_server):
    """The layer of a Redis of this test's own: pub/sub, or what a test asks for."""
    backend = getattr(request, "param", PUBSUB)
    # As the settings have it: the core layer blocks for longer than redis-py waits.
    hosts = [{"address": redis_server.url, "socket_timeout": 15}]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": hosts}}}
    channel_layers.backends = {}
    yield redis_server
    channel_layers.backends = {}


@pytest.fixture
def own_server(transactional_db, tmp_path):
    """Start servers on the tests' own database that a test may end: `own_server(kind, QFLARE_…="…")`."""
    started = []

    def start(kind="daphne", **environment):
        database = connection.settings_dict["NAME"]
        environment = {**ENVIRONMENT, "QFLARE_SECRET_KEY": project_settings.SECRET_KEY, **environment}
        started.append(start_server(tmp_path / "own", database=database, kind=kind, environment=environment))
        return started[-1]

    yield start
    for server in started:
        server.kill()
