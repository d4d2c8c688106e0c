"""How a device comes to belong to a server: it makes sure who the server is, makes a key, and then shows its token."""

import base64

import msgspec

import edge
from edge.errors import BadUsage, WrongServer
from edge.http import Doors
from edge.identity import (
    ALGORITHM,
    ENROLL_CONTEXT,
    RECEIPT_CONTEXT,
    BadSignature,
    SigningKey,
    fingerprint_of,
    verify,
)
from edge.protocol import PROTOCOL
from edge.protocol.enrollment import MalformedToken, TokenText, parse_token
from edge.protocol.http import EnrollmentReceipt, EnrollmentRequest
from edge.store import Account, Home

_DISTRUST = "Nothing was sent to it. Check the address, and ask the server's operators for its fingerprint."


def read_token(text: str) -> TokenText:
    """Read an enrolment token.

    Raises:
        BadUsage: it is none.
    """
    try:
        return parse_token(text)
    except MalformedToken as error:
        raise BadUsage("The enrolment token cannot be read", str(error), "Copy it whole.") from error


def enroll(home: Home, doors: Doors, token: TokenText, name: str) -> EnrollmentReceipt:
    """Enrol a device with a server and pin the server's key; doing it again with the same token and key is harmless.

    Raises:
        InsecureAddress: the token would cross the network in the clear.
        WrongServer: the server, or its receipt, is not of the key that the token names.
        BadUsage: the folder belongs to another server.
        EdgeError: the folder cannot be used, the server cannot be reached, or it refuses.
    """
    doors.server.require_safe("The enrolment token")
    if home.is_enrolled and home.account().server_fingerprint != token.fingerprint:
        raise BadUsage(
            f"The folder {home.path} cannot be enrolled with {doors.server.origin}",
            f"it belongs to the server at {home.account().server}",
            "Give this device another folder with --home.",
        )
    server_key = _trusted_key(doors, token)
    key = home.make_key()
    receipt = _register(doors, token, name, key, server_key)
    home.save_account(
        Account(
            server=doors.server.origin,
            server_public_key=receipt.server_public_key,
            server_fingerprint=receipt.server_fingerprint,
            device_id=receipt.device_id,
            name=receipt.name,
        )
    )
    return receipt


def _trusted_key(doors: Doors, token: TokenText) -> bytes:
    """Return the server's public key, having checked it against the token."""
    identity = doors.identity()
    server = doors.server
    if (identity.protocol, identity.algorithm) != (PROTOCOL, ALGORITHM):
        raise WrongServer(
            f"The server {server.origin} cannot be used",
            f"it speaks {identity.protocol} with {identity.algorithm}, this device {PROTOCOL} with {ALGORITHM}",
            "Install the version of qflare-edge that fits the server.",
        )
    key = _decode(identity.public_key)
    if fingerprint_of(key) != token.fingerprint:
        raise WrongServer(
            f"The server {server.origin} is not the one that the token is for",
            f"its key's fingerprint is {fingerprint_of(key)}, the token names {token.fingerprint}",
            _DISTRUST,
        )
    return key


def _register(doors: Doors, token: TokenText, name: str, key: SigningKey, server_key: bytes) -> EnrollmentReceipt:
    request = EnrollmentRequest(
        protocol=PROTOCOL,
        algorithm=ALGORITHM,
        token_id=token.id,
        token_secret=token.secret,
        public_key=_encode(key.public_key),
        name=name,
        edge_version=edge.__version__,
    )
    body = msgspec.json.encode(request)
    receipt, receipt_bytes, signature = doors.enroll(body, key.sign(body, ENROLL_CONTEXT))
    what = f"The receipt of {doors.server.origin} is not accepted"
    try:
        verify(server_key, signature, receipt_bytes, RECEIPT_CONTEXT)
    except BadSignature as error:
        raise WrongServer(what, str(error), "Ask the server's operators; this device is not enrolled.") from error
    if receipt.device_fingerprint != key.fingerprint or _decode(receipt.server_public_key) != server_key:
        why = "it is about another device or another server"
        raise WrongServer(what, why, "Ask the server's operators; this device is not enrolled.")
    return receipt


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    """Return the bytes of a base64 text; none, which no key has, if it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
