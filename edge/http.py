"""The device's side of the server's doors: enrolment, weights down, updates up; the socket carries all else."""

import base64
import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from edge.errors import BadUsage, InsecureAddress, Refused, ServerUnreachable, TokenExpired
from edge.protocol.http import (
    MANIFEST_HEADER,
    SIGNATURE_HEADER,
    EnrollmentReceipt,
    ProblemBody,
    ServerIdentity,
    UpdateReceipt,
)
from edge.store import PendingUpdate

SERVER_PATH = "/api/v1/server/"
ENROLL_PATH = "/api/v1/enroll/"
SOCKET_PATH = "/ws/clients"

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
IDLE_SECONDS = 60.0
"""How long an unused connection is kept; one round should find that of the last."""

LONGEST_REASON = 500

_RETRY_STATUS = frozenset({408, 425, 429})

T = TypeVar("T")


class _Reason(msgspec.Struct, kw_only=True, frozen=True):
    reason: str


class Server:
    """Where a server is: its origin, and the addresses on it.

    Raises:
        BadUsage: the address is not http(s)://host[:port].
    """

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address.strip())
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path in ("", "/")
            _ = parts.port  # raises when it is no number
        except ValueError:
            valid = False
        if not valid or parts.query or parts.fragment or parts.username:
            raise BadUsage(
                f"{address!r} is no server's address",
                "it must be a scheme, a host and perhaps a port",
                "Write it like https://learning.example.org or http://127.0.0.1:8000.",
            )
        self.origin = f"{parts.scheme}://{parts.netloc}".lower()
        self.is_encrypted = parts.scheme == "https"
        self.is_loopback = _is_loopback(parts.hostname or "")

    @property
    def socket_url(self) -> str:
        return self.origin.replace("http", "ws", 1) + SOCKET_PATH

    def url(self, path: str) -> str:
        """Return the whole address of a path that the server named.

        Raises:
            Refused: it leads to another server, which must not see this one's bearer token.
        """
        url = urljoin(self.origin, path)
        if not url.startswith(self.origin + "/"):
            raise Refused(f"{path!r} is not followed", "it leads to another server", "", status=0, code="foreign_url")
        return url

    def require_safe(self, what: str) -> None:
        """Make sure that a secret may be sent there.

        Raises:
            InsecureAddress: the connection is neither encrypted nor within this machine.
        """
        if not (self.is_encrypted or self.is_loopback):
            raise InsecureAddress(
                f"{what} is not sent to {self.origin}",
                "anyone on the way could read it: the address is neither https nor this machine's own",
                "Use the server's https address.",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def trusted_certificates(server: Server, ca: Path | None) -> ssl.SSLContext | None:
    """Return what https and wss trust: the file `ca` alone, else the usual authorities; None without encryption.

    Raises:
        BadUsage: the file holds no certificates.
    """
    if not server.is_encrypted:
        return None
    if ca is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise BadUsage(f"The certificates in {ca} cannot be used", str(error), "Name a file in PEM format.") from error


class Doors:
    """The server's doors; one instance may serve many devices and threads, over connections that are kept."""

    def __init__(self, server: Server, certificates: ssl.SSLContext | None, *, connections: int = 4) -> None:
        self.server = server
        self._client = httpx.Client(
            verify=certificates or True,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=IDLE_SECONDS
            ),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def identity(self) -> ServerIdentity:
        """Ask the server who it is.

        Raises:
            ServerUnreachable: nothing answered, or something that is no QFLARE server.
        """
        what = "ask who the server is"
        return self._read(self._send(what, "GET", SERVER_PATH), what, ServerIdentity)

    def enroll(self, body: bytes, signature: bytes) -> tuple[EnrollmentReceipt, bytes, bytes]:
        """Ask to be enrolled.

        Returns:
            The receipt, the exact bytes it came as, and the server's signature over them (not checked here).

        Raises:
            ServerUnreachable, Refused, TokenExpired
        """
        what = "enrol"
        headers = {"Content-Type": "application/json", SIGNATURE_HEADER: _text(signature)}
        response = self._send(what, "POST", ENROLL_PATH, headers=headers, content=body)
        receipt = self._read(response, what, EnrollmentReceipt)
        return receipt, response.content, _signature(response.headers.get(SIGNATURE_HEADER, ""))

    def download(self, path: str, token: str, target: Path, limit: int) -> None:
        """Fetch weights into a new file, chunk by chunk; nothing is said about what they are.

        Args:
            limit: bytes at most.

        Raises:
            ServerUnreachable, Refused, TokenExpired
        """
        what = "fetch weights"
        url = self.server.url(path)
        try:
            headers = {"Accept-Encoding": "identity", **_bearer(token)}
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _problem(what, response)
                size = 0
                with target.open("wb") as file:
                    for chunk in response.iter_bytes():
                        size += len(chunk)
                        if size > limit:
                            why = f"they have more than {limit} bytes"
                            raise Refused("The weights are not taken", why, "", status=200, code="too_large")
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise self._unreachable(what, error) from error

    def upload(self, update: PendingUpdate, token: str) -> UpdateReceipt:
        """Send an update from its file, with its manifest; sending it again is harmless.

        Raises:
            ServerUnreachable, Refused, TokenExpired
            OSError: the file cannot be read.
        """
        what = "send an update"
        headers = {
            "Content-Type": "application/octet-stream",
            MANIFEST_HEADER: _text(update.manifest_bytes),
            SIGNATURE_HEADER: _text(update.signature),
            **_bearer(token),
        }
        with update.file.open("rb") as file:
            response = self._send(what, "PUT", update.url, headers=headers, content=file)
        return self._read(response, what, UpdateReceipt)

    def report_failure(self, assignment_id: int, reason: str, token: str) -> None:
        """Tell the server that this device gives an assignment up.

        Raises:
            ServerUnreachable, Refused, TokenExpired
        """
        headers = {"Content-Type": "application/json", **_bearer(token)}
        path = f"/api/v1/assignments/{assignment_id}/failure/"
        body = msgspec.json.encode(_Reason(reason=reason[:LONGEST_REASON]))
        self._send("give an assignment up", "POST", path, headers=headers, content=body)

    def _send(
        self,
        what: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | IO[bytes] | None = None,
    ) -> httpx.Response:
        try:
            response = self._client.request(method, self.server.url(path), headers=headers, content=content)
        except httpx.HTTPError as error:
            raise self._unreachable(what, error) from error
        if not response.is_success:
            raise _problem(what, response)
        return response

    def _read(self, response: httpx.Response, what: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise self._unreachable(what, error) from error

    def _unreachable(self, what: str, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            f"Could not {what} at {self.server.origin}",
            str(error) or type(error).__name__,
            "Check the address, the network, and that a QFLARE server runs there.",
        )


def _problem(what: str, response: httpx.Response) -> ServerUnreachable | Refused | TokenExpired:
    """Tell a refusal of the server, which is final, from anything else that may pass."""
    status = response.status_code
    where = str(response.url.copy_with(path="/", query=None)).rstrip("/")
    if status >= 500 or status in _RETRY_STATUS:
        return ServerUnreachable(f"Could not {what} at {where}", f"it answered {status}", "Try again later.")
    try:
        problem = msgspec.json.decode(response.content, type=ProblemBody).error
    except msgspec.DecodeError:
        # A proxy or another program answers in other words than ours; what it says decides nothing.
        why = f"the answer, {status}, is not one of a QFLARE server"
        return ServerUnreachable(f"Could not {what} at {where}", why, "Check the address.")
    refusal = f"The server refused to let this device {what}"
    if status == httpx.codes.UNAUTHORIZED:
        return TokenExpired(refusal, problem.message, problem.action)
    return Refused(refusal, problem.message, problem.action, status=status, code=problem.code)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _signature(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
