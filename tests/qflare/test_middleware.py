"""Where a request comes from, as it is noted with what is done by it; a proxy's word counts where it is known."""

from ipaddress import ip_network

import pytest
from django.urls import reverse

from fl.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def known_proxies(settings):
    settings.QFLARE_TRUSTED_PROXIES = [ip_network("10.1.0.0/16")]


def noted_address(client, peer, forwarded_for=None):
    """Return the address that is noted of a sign-in that fails."""
    headers = {} if forwarded_for is None else {"X-Forwarded-For": forwarded_for}
    client.post(reverse("login"), {"username": "eve", "password": "x"}, REMOTE_ADDR=peer, headers=headers)
    return AuditEntry.objects.get().address


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.7", None, "192.0.2.7"),
        ("10.1.2.3", "192.0.2.7", "192.0.2.7"),
        ("10.1.2.3", "192.0.2.7, 10.1.9.9", "192.0.2.7"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("::ffff:192.0.2.7", None, "192.0.2.7"),
        ("10.1.2.3", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_address_is_that_which_a_known_proxy_says_or_else_the_peers(client, peer, forwarded_for, address):
    assert noted_address(client, peer, forwarded_for) == address


@pytest.mark.parametrize(
    ("peer", "forged", "address"),
    [
        ("198.51.100.1", "192.0.2.7", "198.51.100.1"),
        ("10.1.2.3", "127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "<script>", "10.1.2.3"),
    ],
)
def test_what_anybody_else_says_of_addresses_is_not_believed(client, peer, forged, address):
    assert noted_address(client, peer, forged) == address


def test_a_request_without_an_address_is_noted_without_one(client):
    assert noted_address(client, "") is None


def test_what_was_set_for_a_request_ends_with_it(client):
    from fl.audit import THE_SERVER_ITSELF, _origin

    noted_address(client, "192.0.2.7")

    assert _origin.get() == THE_SERVER_ITSELF
