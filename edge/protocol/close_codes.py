"""Why a connection ends, and whether to come back: 40xx reconnect, 45xx stay away."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Every code that the server closes a WebSocket with.

    Daphne sends only 1000 and 3000-4999; the ranges follow Centrifuge's split into temporary and terminal.
    """

    NORMAL = 1000
    RESTARTING = 4001
    EXPIRED = 4002
    TOO_SLOW = 4008
    HEARTBEAT_MISSED = 4009
    POSITION_LOST = 4010
    NOT_APPROVED = 4011
    TOO_MANY = 4013
    NOT_AUTHENTICATED = 4500
    PROTOCOL_ERROR = 4501
    FORBIDDEN = 4503
    REPLACED = 4504
    DEVICE_BARRED = 4505


MEANINGS: dict[CloseCode, str] = {
    CloseCode.NORMAL: "the connection ended normally",
    CloseCode.RESTARTING: "the server is restarting",
    CloseCode.EXPIRED: "the session or token has expired",
    CloseCode.TOO_SLOW: "the connection did not keep up",
    CloseCode.HEARTBEAT_MISSED: "no heartbeat was heard in time",
    CloseCode.POSITION_LOST: "the position in a stream is lost",
    CloseCode.NOT_APPROVED: "the device is enrolled and not yet approved",
    CloseCode.TOO_MANY: "too many connections or messages",
    CloseCode.NOT_AUTHENTICATED: "not authenticated",
    CloseCode.PROTOCOL_ERROR: "the protocol was not kept",
    CloseCode.FORBIDDEN: "not allowed",
    CloseCode.REPLACED: "a newer connection of the same device took over",
    CloseCode.DEVICE_BARRED: "the device is suspended or revoked",
}

RESTARTS: frozenset[int] = frozenset({1012, 1013, CloseCode.RESTARTING})
"""The server ends to begin anew, by our code or by those that other servers and proxies have for it (IANA)."""

_WIRE_ERRORS = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


def is_terminal(code: int) -> bool:
    """Say whether a client that was closed with `code` must not reconnect on its own.

    Terminal are 45xx and the wire errors of RFC 6455 that are a client's own mistake; all else is answered by
    reconnecting with back-off.
    """
    return code in _WIRE_ERRORS or 4500 <= code <= 4999
