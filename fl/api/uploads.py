"""The door of updates: headers before the first byte, bytes as they come, then one use case; no request of Django's.

Django's handler has read a whole body before any view sees it, so what takes bodies from the server
(`qflare/uploads.py`) calls this instead, each time from a thread.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import NoReturn

from django.utils import timezone

from edge.protocol.http import MANIFEST_HEADER, SIGNATURE_HEADER, UpdateReceipt
from fl import updates
from fl.exceptions import EncodedBody, LengthRequired, TooLarge, UpdateRefused
from fl.files import ReceivedFile


class Upload:
    """One update on its way in; `discard` it in the end, whatever happened.

    Args:
        device_id: who sends it, as `sender_of` says.
        headers: by their names in lower case.

    Raises:
        Unauthenticated: the device is none of ours any more, or may not come in.
        NotFound: the device has no such assignment.
        UpdateRefused: a header is missing or wrong, or the body is going to be too large; the update is rejected.
    """

    def __init__(self, assignment_id: int, device_id: int, headers: Mapping[str, str]) -> None:
        self._assignment = updates.assignment_of(device_id, assignment_id)
        self._limit = updates.size_limit(self._assignment)
        self._manifest = bytes_of(headers, MANIFEST_HEADER)
        self._signature = bytes_of(headers, SIGNATURE_HEADER)
        self._file = ReceivedFile()
        if (refusal := self._fault_in(headers)) is not None:
            self._reject(refusal)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take in the next bytes, in the chunks in which they came.

        Raises:
            TooLarge: these are more than the model's; the update is rejected.
        """
        size = self._file.size + sum(map(len, chunks))
        if size > self._limit:
            self._reject(self._too_large(size))
        for chunk in chunks:
            self._file.write(chunk)

    def finish(self) -> UpdateReceipt:
        """Accept what has arrived.

        Raises:
            Conflict, UpdateRefused: as `accept_update`.
        """
        self._file.complete()
        return updates.accept_update(
            assignment=self._assignment,
            manifest=self._manifest,
            signature=self._signature,
            file=self._file,
            now=timezone.now(),
        )

    def discard(self) -> None:
        """Remove what has arrived, unless it was accepted."""
        self._file.discard()

    def _fault_in(self, headers: Mapping[str, str]) -> UpdateRefused | None:
        for header, value in ((MANIFEST_HEADER, self._manifest), (SIGNATURE_HEADER, self._signature)):
            if not value:
                return UpdateRefused(
                    f"the header {header} is missing or no base64", code="bad_header", action=f"send {header} in base64"
                )
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return LengthRequired("the request does not say how long its body is", action="send a Content-Length")
        if headers.get("content-encoding", "identity") != "identity":
            return EncodedBody("bodies with a Content-Encoding are not taken", action="send the bytes as they are")
        return self._too_large(int(length)) if int(length) > self._limit else None

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"the body has {size} bytes or more; an update of this model has {self._limit} at most")

    def _reject(self, refusal: UpdateRefused) -> NoReturn:
        self._file.discard()
        updates.reject_update(
            assignment=self._assignment,
            manifest=self._manifest,
            signature=self._signature,
            refusal=refusal,
            now=timezone.now(),
        )


def bytes_of(headers: Mapping[str, str], header: str) -> bytes:
    """Return what a header holds in base64, or nothing when it is missing or something else."""
    try:
        return b64decode(headers.get(header.lower(), ""), validate=True)
    except ValueError:
        return b""
