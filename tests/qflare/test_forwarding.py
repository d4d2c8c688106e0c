"""What a proxy says of who asks counts only where the proxy is known."""

from ipaddress import ip_network

import httpx
import pytest

from qflare.forwarding import as_forwarded
from tests.realtime.raw import RawClient, Refused, drop_all
from tests.realtime.servers import OURS, start_server

SAID = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"learning.example.org")]


@pytest.fixture(autouse=True)
def known_proxies(settings):
    settings.QFLARE_TRUSTED_PROXIES = [ip_network("10.1.0.0/16"), ip_network("::1/128")]


def scope_of(*headers, client="10.1.2.3", kind="http"):
    scheme = "http" if kind == "http" else "ws"
    address = (client, 4711) if client else None
    return {"type": kind, "scheme": scheme, "client": address, "headers": [(b"host", b"within"), *headers]}


def seen(scope):
    """Return the scheme and the headers that the application sees."""
    scope = as_forwarded(scope)
    return scope["scheme"], dict(scope["headers"])


def test_a_known_proxy_says_by_what_scheme_and_name_it_was_asked():
    assert seen(scope_of(*SAID)) == ("https", {b"host": b"learning.example.org"})
    assert seen(scope_of(*SAID, kind="websocket")) == ("wss", {b"host": b"learning.example.org"})
    assert seen(scope_of(*SAID, client="::1")) == ("https", {b"host": b"learning.example.org"})
    assert seen(scope_of(SAID[0])) == ("https", {b"host": b"within"})


@pytest.mark.parametrize("client", ["10.2.0.1", "192.0.2.1", "::2", "", None])
def test_what_anybody_else_says_is_thrown_away(client):
    assert seen(scope_of(*SAID, client=client)) == ("http", {b"host": b"within"})


def test_of_several_the_last_was_said_by_the_proxy_itself():
    said = [(b"x-forwarded-proto", b"http, https"), (b"x-forwarded-host", b"evil.example, learning.example.org")]
    assert seen(scope_of(*said)) == ("https", {b"host": b"learning.example.org"})

    twice = [(b"x-forwarded-host", b"evil.example"), (b"x-forwarded-host", b"learning.example.org")]
    assert seen(scope_of(*twice))[1] == {b"host": b"learning.example.org"}


def test_what_is_no_scheme_changes_nothing():
    assert seen(scope_of((b"x-forwarded-proto", b"gopher"), (b"x-forwarded-host", b" "))) == (
        "http",
        {b"host": b"within"},
    )


def test_a_scope_that_nobody_speaks_for_stays_as_it_is():
    scope = scope_of((b"accept", b"*/*"))
    assert as_forwarded(scope) is scope


@pytest.mark.parametrize("kind", OURS)
def test_a_live_server_does_not_believe_who_is_no_known_proxy(kind, tmp_path):
    environment = {"QFLARE_BEHIND_TLS": "1", "QFLARE_TRUSTED_PROXIES": "192.0.2.1", "QFLARE_PUBLIC_DASHBOARD": "1"}
    environment["QFLARE_ALLOWED_HOSTS"] = "127.0.0.1,learning.example.org"
    server = start_server(tmp_path, kind=kind, environment=environment)
    try:
        forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "learning.example.org"}
        token = "x" * 32
        answer = httpx.post(
            f"{server.url}/login/",
            data={"csrfmiddlewaretoken": token, "username": "ada", "password": "secret"},
            headers={**forged, "Origin": "https://learning.example.org", "Cookie": f"csrftoken={token}"},
            trust_env=False,
        )
        lines = [f"{name}: {value}" for name, value in forged.items()]
        with pytest.raises(Refused) as refused:
            RawClient(server.port, "/ws/dashboard", origin="https://learning.example.org", headers=lines)
    finally:
        drop_all()
        server.stop()

    assert answer.status_code == 403
    assert refused.value.status == 403
