"""Every error that the server raises on purpose.

    FlError                     what was asked for cannot be; the text says what, why, and what to do
    ├── NotAllowed              the one who asks may not
    ├── NotFound                there is no such thing, or none that the one who asks may see
    │   └── InTrash             a run was moved to the trash
    ├── Conflict                the state does not allow it
    │   ├── WrongMove           a run, round, assignment or device cannot go from here to there
    │   ├── LostRace            another process got there first
    │   └── IdempotencyConflict the key was used for another request
    ├── Invalid                 a value is not what it must be
    │   ├── InvalidRun          a run that could never work
    │   └── TaskUnavailable     the server does not have the task
    ├── TokenRefused            an enrolment token is unknown, used or expired: which one is not told
    ├── Unauthenticated         no identity, or one that is not proven
    │   ├── TokenExpired        a bearer token is past its time
    │   └── DeviceBarred        the device is suspended or revoked
    │       └── DevicePending   the device is enrolled and not yet approved
    └── UpdateRefused           an update breaks a rule; `code` is stored with it
        ├── TooLarge            more bytes than this model can have
        ├── LengthRequired      how many bytes come is not said
        └── EncodedBody         the bytes come compressed

`code` is stable and meant for programs; one map in `fl.api.errors` turns classes into HTTP status codes, and one in
`realtime.close_codes` into close codes.
"""

from datetime import datetime
from typing import ClassVar


class FlError(Exception):
    """What was asked for cannot be."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, action: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.action = action
        """What to do about it."""
        self.reason_code = code or self.code


class NotAllowed(FlError):
    """The one who asks may not."""

    code = "not_allowed"


class NotFound(FlError):
    """There is no such thing, or none that the one who asks may see."""

    code = "not_found"


class InTrash(NotFound):
    """A run was moved to the trash; who knew of it is told."""

    code = "in_trash"

    def __init__(self, run_id: int, *, label: str, name: str, deleted_at: datetime, goes_at: datetime) -> None:
        super().__init__(f"run {label} is in the trash", action="an admin can restore it")
        self.run_id = run_id
        self.label = label
        self.name = name
        self.deleted_at = deleted_at
        self.goes_at = goes_at
        """When it is deleted for good."""


class Conflict(FlError):
    """The state does not allow it."""

    code = "conflict"


class WrongMove(Conflict):
    """A thing cannot go from the state it is in to the one asked for."""

    code = "wrong_move"

    def __init__(self, what: str, *, current: str, wanted: str, action: str = "") -> None:
        super().__init__(f"{what} is {current} and cannot become {wanted}", action=action)
        self.current = current
        self.wanted = wanted


class LostRace(Conflict):
    """Another process got there first."""

    code = "lost_race"


class IdempotencyConflict(Conflict):
    """An idempotency key came back with another request."""

    code = "idempotency_conflict"


class Invalid(FlError):
    """A value is not what it must be."""

    code = "invalid"

    def __init__(self, message: str, *, field: str = "", action: str = "") -> None:
        super().__init__(message, action=action)
        self.field = field


class InvalidRun(Invalid):
    """A run that could never work."""

    code = "invalid_run"


class TaskUnavailable(Invalid):
    """The server does not have the task."""

    code = "task_unavailable"


class TokenRefused(FlError):
    """An enrolment token is unknown, used or expired; which one is not told."""

    code = "token_refused"

    def __init__(self) -> None:
        super().__init__(
            "the enrolment token is not valid", action="ask for a new token and use it once, before it expires"
        )


class Unauthenticated(FlError):
    """No identity, or one that is not proven."""

    code = "not_authenticated"


class TokenExpired(Unauthenticated):
    """A bearer token is past its time."""

    code = "token_expired"


class DeviceBarred(Unauthenticated):
    """The device proved its key, and is suspended or revoked."""

    code = "device_barred"


class DevicePending(DeviceBarred):
    """The device proved its key, and nobody has approved it yet; it may come again."""

    code = "device_pending"


class UpdateRefused(FlError):
    """An update breaks a rule; it is stored as rejected, with this reason."""

    code = "update_refused"


class TooLarge(UpdateRefused):
    """More bytes than the model's weights can have."""

    code = "too_large"


class LengthRequired(UpdateRefused):
    """How many bytes come is not said, so that nobody could say in time that they are too many."""

    code = "length_required"


class EncodedBody(UpdateRefused):
    """The bytes come compressed, so that how many they become would be known too late."""

    code = "encoded_body"
