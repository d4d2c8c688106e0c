"""Every error that ends a device's command on purpose, and the exit code of each.

EdgeError
├── BadUsage           2  the command or a setting cannot be followed
│   ├── InsecureAddress   a secret would cross the network in the clear
│   └── NotEnrolled       this folder belongs to no server yet
├── ServerUnreachable  3  no answer of a QFLARE server came; trying again may help
├── NotAllowed         4
│   ├── WrongServer       the server's key is not the one that the token or the pin names
│   ├── Refused           the server refused a request, with its reason
│   ├── TokenExpired      the bearer token is no longer valid
│   └── Barred            the server closed the connection for good
├── TaskUnusable       5  a task, its data or the weights for it cannot be used
└── HomeUnusable       6  the device's folder cannot be used
"""

from typing import ClassVar

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class EdgeError(Exception):
    """A failure with three facts for the person who reads it.

    Attributes:
        what: what could not be done.
        why: the cause.
        action: what to do about it; may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, why: str, action: str = "") -> None:
        self.what = what
        self.why = why
        self.action = action
        super().__init__(f"{what}: {why}")


class BadUsage(EdgeError):
    """The command or a setting cannot be followed."""

    exit_code = 2


class InsecureAddress(BadUsage):
    """A secret would cross the network in the clear."""


class NotEnrolled(BadUsage):
    """This folder belongs to no server yet."""


class ServerUnreachable(EdgeError):
    """No answer of a QFLARE server came; trying again may help."""

    exit_code = 3


class NotAllowed(EdgeError):
    """The server says no, or the device does not trust it."""

    exit_code = 4


class WrongServer(NotAllowed):
    """The server's key is not the one that the token or the pin names."""


class Refused(NotAllowed):
    """The server refused a request.

    Attributes:
        status: HTTP status.
        code: the server's name for the reason, such as `token_refused`.
    """

    def __init__(self, what: str, why: str, action: str, *, status: int, code: str) -> None:
        self.status = status
        self.code = code
        super().__init__(what, why, action)


class TokenExpired(NotAllowed):
    """The bearer token is no longer valid; a new one comes with the next connection."""


class Barred(NotAllowed):
    """The server closed the connection for good.

    Attributes:
        code: close code of the WebSocket.
    """

    def __init__(self, what: str, why: str, action: str, *, code: int) -> None:
        self.code = code
        super().__init__(what, why, action)


class TaskUnusable(EdgeError):
    """A task, its data or the weights for it cannot be used."""

    exit_code = 5


class HomeUnusable(EdgeError):
    """The device's folder cannot be used."""

    exit_code = 6
