"""The device's side of the server's doors: enrolment, weights down, updates up; the socket carries all else."""

import base64
import ipaddress
import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import certifi
import msgspec
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

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

_CHUNK_BYTES = 64 * 1024
_OK = 200
_UNAUTHORIZED = 401
_RETRY_STATUS = frozenset({408, 425, 429})
_ONCE = Retry(False, redirect=False)

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
            self.port = parts.port  # raises when it is no number
            self.host = (parts.hostname or "").encode("ascii" if address.isascii() else "idna").decode()
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
        self.is_loopback = _is_loopback(self.host)

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
        is_named = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ  # which OpenSSL reads by itself
        return ssl.create_default_context(cafile=None if is_named else certifi.where())
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise BadUsage(f"The certificates in {ca} cannot be used", str(error), "Name a file in PEM format.") from error


class _Kept(HTTPConnection):
    """A connection that is not used again after a long rest: who is on the way may have forgotten it silently."""

    _answered_at = 0.0

    def connect(self) -> None:
        super().connect()
        # The pool's own time to connect would hold for sending, too.
        self.sock.settimeout(ANSWER_SECONDS)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        response = super().getresponse()
        self._answered_at = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() < self._answered_at + IDLE_SECONDS


class _KeptEncrypted(_Kept, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Kept


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _KeptEncrypted


def _pool(server: Server, certificates: ssl.SSLContext | None, connections: int) -> HTTPConnectionPool:
    """Return connections that ask once, follow nothing, and take no proxy from the environment."""
    timeout = Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
    if server.is_encrypted:
        return _EncryptedPool(
            server.host,
            server.port,
            timeout=timeout,
            maxsize=connections,
            block=True,
            ssl_context=certificates,
            blocksize=_CHUNK_BYTES,
        )
    return _Pool(server.host, server.port, timeout=timeout, maxsize=connections, block=True, blocksize=_CHUNK_BYTES)


class Doors:
    """The server's doors; one instance may serve many devices and threads, over connections that are kept."""

    def __init__(self, server: Server, certificates: ssl.SSLContext | None, *, connections: int = 4) -> None:
        self.server = server
        self._connections = _pool(server, certificates, connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._connections.close()

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
        return receipt, response.data, _signature(response.headers.get(SIGNATURE_HEADER, ""))

    def download(self, path: str, token: str, target: Path, limit: int) -> None:
        """Fetch weights into a new file, chunk by chunk; nothing is said about what they are.

        Args:
            limit: bytes at most.

        Raises:
            ServerUnreachable, Refused, TokenExpired
        """
        what = "fetch weights"
        try:
            response = self._request("GET", path, headers=_bearer(token), preload_content=False)
            try:
                if response.status != _OK:
                    raise self._problem(what, response)
                _write(response, target, limit)
            finally:
                # What is left unread would be taken for the next answer.
                response.close()
                response.release_conn()
        except HTTPError as error:
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
            headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
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
    ) -> BaseHTTPResponse:
        try:
            response = self._request(method, path, headers=headers, content=content)
        except HTTPError as error:
            raise self._unreachable(what, error) from error
        if not _OK <= response.status < 300:
            raise self._problem(what, response)
        return response

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None,
        content: bytes | IO[bytes] | None = None,
        preload_content: bool = True,
    ) -> BaseHTTPResponse:
        return self._connections.urlopen(
            method,
            self.server.url(path).removeprefix(self.server.origin),
            body=content,
            headers=headers or {},
            retries=_ONCE,
            redirect=False,
            assert_same_host=False,  # `url` has made sure of it
            pool_timeout=int(ANSWER_SECONDS),
            preload_content=preload_content,
        )

    def _read(self, response: BaseHTTPResponse, what: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.data, type=kind)
        except msgspec.DecodeError as error:
            raise self._unreachable(what, error) from error

    def _problem(self, what: str, response: BaseHTTPResponse) -> ServerUnreachable | Refused | TokenExpired:
        """Tell a refusal of the server, which is final, from anything else that may pass."""
        status = response.status
        here = f"Could not {what} at {self.server.origin}"
        if status >= 500 or status in _RETRY_STATUS:
            return ServerUnreachable(here, f"it answered {status}", "Try again later.")
        try:
            problem = msgspec.json.decode(response.data, type=ProblemBody).error
        except msgspec.DecodeError:
            # A proxy or another program answers in other words than ours; what it says decides nothing.
            why = f"the answer, {status}, is not one of a QFLARE server"
            return ServerUnreachable(here, why, "Check the address.")
        refusal = f"The server refused to let this device {what}"
        if status == _UNAUTHORIZED:
            return TokenExpired(refusal, problem.message, problem.action)
        return Refused(refusal, problem.message, problem.action, status=status, code=problem.code)

    def _unreachable(self, what: str, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            f"Could not {what} at {self.server.origin}",
            _reason(error),
            "Check the address, the network, and that a QFLARE server runs there.",
        )


def _write(response: BaseHTTPResponse, target: Path, limit: int) -> None:
    size = 0
    with target.open("wb") as file:
        for chunk in response.stream(_CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if size > limit:
                why = f"they have more than {limit} bytes"
                raise Refused("The weights are not taken", why, "", status=_OK, code="too_large")
            file.write(chunk)


def _reason(error: Exception) -> str:
    """Say what went wrong as the system says it, without the pool that it happened in."""
    inside = error.__cause__ or next((part for part in error.args if isinstance(part, Exception)), error)
    return str(inside) or type(inside).__name__


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _signature(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
