"""What is signed when a device connects: both sides cover the exact bytes that were exchanged."""

import hashlib

import msgspec

from edge.protocol.server import Challenge

CHALLENGE_EXPIRES_SECONDS = 30


def challenge_message(hello: str, challenge: Challenge) -> bytes:
    """Return what the server signs (context `qflare/v1/challenge`): the hash of `hello`, and its challenge unsigned.

    Args:
        hello: the exact text of the device's `hello` frame.
        challenge: the challenge; its `signature` is left out.
    """
    unsigned = msgspec.json.encode(msgspec.structs.replace(challenge, signature=""))
    return hashlib.sha256(hello.encode()).digest() + unsigned


def transcript(hello: str, challenge_frame: str) -> bytes:
    """Return what the device signs (context `qflare/v1/auth`): the hash over both frames as they crossed the wire."""
    first = hashlib.sha256(hello.encode()).digest()
    second = hashlib.sha256(challenge_frame.encode()).digest()
    return hashlib.sha256(first + second).digest()
