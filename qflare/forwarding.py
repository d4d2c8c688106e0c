"""What a proxy says of the one who asks: by what scheme and name it was asked.

Anybody can send such headers, so they count only when they come from one of QFLARE_TRUSTED_PROXIES. What comes later,
the check of origins among it, sees the scheme and the host that are true. (X-Forwarded-For is looked at where
connections are counted, see `fl.addresses`.)
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from fl.addresses import Network, is_one_of

PROTO, HOST = b"x-forwarded-proto", b"x-forwarded-host"
_WEBSOCKET = {"http": "ws", "https": "wss"}


def as_forwarded(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the scope of a request or a socket as it was where the client asked, without the two headers."""
    headers = scope["headers"]
    if not any(name in (PROTO, HOST) for name, _ in headers):
        return scope
    said = {name: value for name, value in headers if name in (PROTO, HOST)}
    kept = [(name, value) for name, value in headers if name not in (PROTO, HOST)]
    scope = {**scope, "headers": kept}
    if not _is_trusted(scope.get("client"), settings.QFLARE_TRUSTED_PROXIES):
        return scope
    if (scheme := _last(said.get(PROTO, b"")).decode("latin-1").lower()) in _WEBSOCKET:
        scope["scheme"] = _WEBSOCKET[scheme] if scope["type"] == "websocket" else scheme
    if host := _last(said.get(HOST, b"")):
        scope["headers"] = [(b"host", host), *((name, value) for name, value in kept if name != b"host")]
    return scope


def _is_trusted(client: Sequence[Any] | None, trusted: Sequence[Network]) -> bool:
    return bool(client) and is_one_of(str(client[0]) if client else "", trusted)


def _last(value: bytes) -> bytes:
    # Of several, the last was said by the proxy that speaks to us; those before it may be anybody's.
    return value.rpartition(b",")[2].strip()
