"""What only PostgreSQL cannot take, sent to a live server by anybody: an answer, and no mistake of the server's."""

import json
import os
import select
import socket
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pytest

from edge.protocol.close_codes import CloseCode
from qflare.handler import THREADS
from tests.realtime.raw import CLOSE, RawClient, dashboard
from tests.realtime.servers import OURS, ROOT, start_server
from tests.services.postgres import restartable_cluster

COOKIE = 'Cookie: sessionid="\\000aaaaaaaaaaaa"'
"""Octal, as cookies have it."""


SIGN_IN = """
from tests.builders import person
from tests.realtime.acts import cookie_of
print(cookie_of(person("ada", "viewer")))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster with a migrated database that the servers of this module share."""
    with restartable_cluster() as cluster:
        folder = tmp_path_factory.mktemp("postgresql")
        environment = {**os.environ, "DATABASE_URL": cluster.url, "QFLARE_DATA_DIR": str(folder), "REDIS_URL": ""}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        yield cluster


@pytest.fixture(scope="module", params=OURS)
def server(request, cluster, tmp_path_factory):
    patient = {"QFLARE_DATABASE_WAIT_SECONDS": "60"}
    environment = {"DATABASE_URL": cluster.url, "QFLARE_PUBLIC_DASHBOARD": "1", **patient}
    server = start_server(tmp_path_factory.mktemp(request.param), kind=request.param, environment=environment)
    yield server
    server.stop()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "sub", "streams": ["\0"]},
        {"type": "sub", "streams": ["system\0"], "since": {"system\0": {"epoch": "\0", "seq": 1}}},
        {"type": "hello", "protocol": "qflare.v1", "since": {"\0": {"epoch": "e", "seq": 1}}},
    ],
    ids=["sub", "sub from a position", "hello"],
)
def test_a_stream_s_name_with_a_nul_is_one_that_is_not_there(server, message):
    client, before = dashboard(server), len(server.log)

    client.send(json.dumps(message))

    while (frame := json.loads(client.text()))["event"] != "error":
        pass
    assert frame["data"]["code"] == "not_found"
    assert "Traceback" not in server.log[before:]


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?since=%00:e:1", []), ("?since=system:%00:1", []), ("", [COOKIE])],
    ids=["a stream", "an epoch", "a session"],
)
def test_a_position_or_a_session_with_a_nul_is_none(server, query, headers):
    before = len(server.log)
    client = RawClient(server.port, f"/ws/dashboard{query}", origin=server.url, headers=headers)

    opcode, payload = client.receive()

    assert opcode != CLOSE, payload
    assert json.loads(payload)["event"] == "welcome"
    assert "Traceback" not in server.log[before:]


def test_a_page_that_is_asked_for_by_a_session_with_a_nul_is_anybody_s(server):
    before = len(server.log)

    answer = httpx.get(f"{server.url}/login/", headers=dict([COOKIE.split(": ")]), trust_env=False)

    assert answer.status_code == 200
    assert "Traceback" not in server.log[before:]


def test_an_outage_of_the_layer_is_told_once_on_postgresql_too(postgres_database, tmp_path):
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = others | {"DATABASE_URL": postgres_database, "QFLARE_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/realtime/test_layer_outages.py"]

    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout[-20_000:]
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout


def test_people_of_a_server_whose_database_stands_still_are_trusted_for_a_while_and_come_back_with_it(
    cluster, tmp_path
):
    trust = {"QFLARE_RECHECK_SECONDS": "0.2", "QFLARE_TRUST_SECONDS": "1", "QFLARE_DATABASE_WAIT_SECONDS": "0.5"}
    server = start_server(tmp_path, environment={"DATABASE_URL": cluster.url, **trust})
    try:
        session = f"Cookie: {server.manage('shell', '-v0', '-c', SIGN_IN).strip()}"
        client = dashboard(server, origin=server.url, headers=[session])
        with cluster.stands_still():
            code = client.close_code()

        assert code == CloseCode.EXPIRED
        assert dashboard(server, origin=server.url, headers=[session])
        assert httpx.get(f"{server.url}/readyz", trust_env=False, timeout=60).text == "ok\n"
    finally:
        assert server.stop() == 0


def test_a_server_says_that_it_answers_though_all_its_threads_wait_for_the_database(server, cluster):
    with ExitStack() as peers:
        address = ("127.0.0.1", server.port)
        waiting = [peers.enter_context(socket.create_connection(address, 60)) for _ in range(THREADS + 1)]
        with cluster.stands_still():
            for peer in waiting:
                peer.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")

            alive = httpx.get(f"{server.url}/healthz", trust_env=False, timeout=20)

            answered, _, _ = select.select(waiting, [], [], 0)
        assert (alive.status_code, alive.text, answered) == (200, "ok\n", [])
        assert all(peer.recv(1000).startswith(b"HTTP/1.1 200") for peer in waiting)
