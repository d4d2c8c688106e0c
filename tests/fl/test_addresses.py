from ipaddress import ip_network

import pytest

from fl.addresses import client_address, counted_as

PROXIES = [ip_network(name) for name in ("127.0.0.1", "10.0.0.0/8", "::1")]


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("203.0.113.5", "", "203.0.113.5"),
        # A stranger may write what it likes.
        ("203.0.113.5", "198.51.100.7", "203.0.113.5"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::ffff:127.0.0.1", "198.51.100.7", "198.51.100.7"),
        # What the client wrote itself stands to the left of what the proxy saw.
        ("127.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.2.3.4, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("127.0.0.1", "10.9.9.9,10.1.2.3", "10.9.9.9"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "nonsense, 198.51.100.7", "198.51.100.7"),
        ("::1", "[2001:db8::7]", "2001:db8::7"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", "198.51.100.7", ""),
        ("unix:", "198.51.100.7", ""),
    ],
)
def test_a_proxys_word_counts_where_the_proxy_is_listed_and_no_further(peer, said, address):
    assert client_address(peer, said, PROXIES) == address


def test_without_a_listed_proxy_nobodys_word_counts():
    assert client_address("127.0.0.1", "198.51.100.7", []) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "name"),
    [("198.51.100.7", "198.51.100.7"), ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"), ("::1", "::/64"), ("", "")],
)
def test_in_ipv6_a_whole_network_is_one_who_connects(address, name):
    assert counted_as(address) == name
