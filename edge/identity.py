"""Keys and signatures: ML-DSA-65 (FIPS 204) or nothing; there is no fallback.

A device's key is made on the device and a server's at its first start; both live in files of mode 0600, as PKCS8.
Every signature carries a context string, so that one made for one purpose is worth nothing for another.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

ALGORITHM = "ML-DSA-65"

ENROLL_CONTEXT = b"qflare/v1/enroll"
RECEIPT_CONTEXT = b"qflare/v1/receipt"
CHALLENGE_CONTEXT = b"qflare/v1/challenge"
AUTH_CONTEXT = b"qflare/v1/auth"
UPDATE_CONTEXT = b"qflare/v1/update"


class IdentityError(Exception):
    """A key or signature is not what it must be."""


class AlgorithmMissing(IdentityError):
    """This installation cannot do ML-DSA-65; nothing may start."""


class KeyUnreadable(IdentityError):
    """A key file is missing, damaged, of another algorithm, or open to others."""


class BadSignature(IdentityError):
    """A signature does not belong to this key, message and context."""


class SigningKey:
    """An ML-DSA-65 private key and what one does with it."""

    def __init__(self, key: MLDSA65PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.fingerprint: str = fingerprint_of(self.public_key)

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key.

        Raises:
            AlgorithmMissing: ML-DSA-65 is not available.
        """
        try:
            return cls(MLDSA65PrivateKey.generate())
        except UnsupportedAlgorithm as error:
            raise AlgorithmMissing(_MISSING) from error

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key from its file.

        Raises:
            KeyUnreadable: the file is missing, damaged, of another algorithm, or readable by others.
        """
        try:
            if path.stat().st_mode & 0o077:
                raise KeyUnreadable(f"{path} can be read by other users; make it private: chmod 600 {path}")
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyUnreadable(f"the key {path} cannot be read: {error}") from error
        if not isinstance(key, MLDSA65PrivateKey):
            raise KeyUnreadable(f"the key {path} is not an {ALGORITHM} key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new file of mode 0600, durably; an existing file is never replaced.

        Raises:
            FileExistsError: there is a file already.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link fails where a name is taken, so two processes starting at once agree on one key.
            os.link(partial, path)
        finally:
            partial.unlink()

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Sign a message for one purpose; 3,309 bytes, never twice the same."""
        return self._key.sign(message, context)


def fingerprint_of(public_key: bytes) -> str:
    """Return the SHA-256 of a raw public key as 64 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()


def verify(public_key: bytes, signature: bytes, message: bytes, context: bytes) -> None:
    """Check a signature.

    Args:
        public_key: raw ML-DSA-65 key, 1,952 bytes.

    Raises:
        BadSignature: it is not this key's signature of this message in this context, or the key is no key.
    """
    try:
        MLDSA65PublicKey.from_public_bytes(public_key).verify(signature, message, context)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("the signature does not fit the key, the message and the context") from error


def require_algorithm() -> None:
    """Make sure that ML-DSA-65 works here: a signature is made, verified, and refused when anything differs.

    Raises:
        AlgorithmMissing: it does not; the caller must not start.
    """
    key = SigningKey.generate()
    signature = key.sign(b"self-test", AUTH_CONTEXT)
    verify(key.public_key, signature, b"self-test", AUTH_CONTEXT)
    for message, context in ((b"self-tesT", AUTH_CONTEXT), (b"self-test", UPDATE_CONTEXT)):
        try:
            verify(key.public_key, signature, message, context)
        except BadSignature:
            continue
        raise AlgorithmMissing(f"{ALGORITHM} accepted a wrong signature in its self-test; refusing to start")


_MISSING = (
    f"{ALGORITHM} is not available in this installation of `cryptography`; "
    "install cryptography 50 or newer from its wheel; there is no fallback"
)
