"""Why the server ends a connection: the one map from errors to close codes, and the guard of what may be sent."""

from edge.protocol.close_codes import MEANINGS, CloseCode
from fl.exceptions import DeviceBarred, DevicePending, FlError, NotAllowed, Unauthenticated

CODES: dict[type[FlError], CloseCode] = {
    FlError: CloseCode.PROTOCOL_ERROR,
    NotAllowed: CloseCode.FORBIDDEN,
    Unauthenticated: CloseCode.NOT_AUTHENTICATED,
    DeviceBarred: CloseCode.DEVICE_BARRED,
    DevicePending: CloseCode.NOT_APPROVED,
}
"""The nearest class above an error's own decides."""
DUPLICATE_IDENTITY = "more than one device connects with this identity"
"""What a `bye` says to both of a pair that takes turns."""


def close_code_of(error: FlError) -> CloseCode:
    """Return the close code for an error that ends a connection."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def meaning_of(code: CloseCode) -> str:
    """Return what a `bye` says when nothing more precise is known."""
    return MEANINGS[code]


def require_sendable(code: int) -> None:
    """Make sure that a close code gets through every server.

    Raises:
        ValueError: it is neither 1000 nor within 4000-4999; Daphne would raise, and the consumer would die.
    """
    if code != CloseCode.NORMAL and not 4000 <= code <= 4999:
        raise ValueError(f"close code {code} cannot be sent by every server: use 1000 or 4000-4999")
