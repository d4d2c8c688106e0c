"""Whose address a request or a socket comes from: the peer's own, or what a proxy says that is known to us.

Anybody can send an X-Forwarded-For, so it counts only when it comes from one of QFLARE_TRUSTED_PROXIES.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the address of the one who asks; empty where nothing is known, as behind a Unix socket.

    Args:
        peer: address at the other end of the connection.
        forwarded_for: the X-Forwarded-For header; several of them joined by commas.
        trusted: the proxies whose word counts. Each adds the address it saw at the right end of the header, so from
            there on one goes back over those that are trusted.
    """
    address = _parsed(peer)
    for said in reversed(forwarded_for.split(",")):
        if address is None or not any(address in network for network in trusted):
            break
        further = _parsed(said)
        if further is None:
            break
        address = further
    return str(address) if address is not None else ""


def is_one_of(address: str, networks: Sequence[Network]) -> bool:
    """Say whether an address lies in one of these networks."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def counted_as(address: str) -> str:
    """Return the name under which connections of an address are counted: in IPv6 everybody has a whole /64."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return address


def _parsed(text: str) -> _Address | None:
    try:
        address = ip_address(text.strip().partition("%")[0].strip("[]"))
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
