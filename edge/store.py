"""A device's folder: its key, who it is to its server, and the updates that the server has not acknowledged yet.

key.pem                     ML-DSA-65 key, 0600, never leaves the device
device.json                 the server, its pinned key, and this device's number there, 0600
edge.toml                   settings, written by people
updates/<id>.safetensors    a finished update; it counts once <id>.json lies beside it
updates/<id>.json           its manifest's exact bytes, their signature, and where to send it
weights/                    weights from the server, by digest
models/                     the newest model of each run
"""

import base64
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from edge.errors import HomeUnusable, NotEnrolled
from edge.identity import UPDATE_CONTEXT, IdentityError, SigningKey
from edge.protocol.http import UpdateManifest


class Account(msgspec.Struct, kw_only=True, frozen=True):
    """Who the device is to its server; `server_public_key` is base64 and pinned."""

    server: str
    server_public_key: str
    server_fingerprint: str
    device_id: int
    name: str

    @property
    def server_key(self) -> bytes:
        """The server's raw public key."""
        return base64.b64decode(self.server_public_key)


class _UpdateRecord(msgspec.Struct, kw_only=True, frozen=True):
    """`updates/<id>.json`; bytes are written as base64."""

    url: str
    manifest: bytes
    signature: bytes


@dataclass(frozen=True)
class PendingUpdate:
    """A finished update that the server has not acknowledged.

    Attributes:
        url: where to send it.
        file: the delta as safetensors.
        manifest_bytes: exactly what was signed.
        manifest: the same, read.
    """

    url: str
    file: Path
    manifest_bytes: bytes
    signature: bytes
    manifest: UpdateManifest

    @property
    def assignment_id(self) -> int:
        return self.manifest.assignment_id


class Home:
    """A device's folder; one process at a time works in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_path = path / "key.pem"
        self.account_path = path / "device.json"
        self.updates = path / "updates"
        self.weights = path / "weights"
        self.models = path / "models"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Work in this folder alone: two processes with one key would push each other out.

        Raises:
            HomeUnusable: another process works in it, or it cannot be written to.
        """
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HomeUnusable(
                    f"The device's folder {self.path} is in use",
                    "another process works in it",
                    "Stop that one, or give this one a folder of its own with --home.",
                ) from error
            yield

    def _open_lock(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            return (self.path / ".lock").open("w")
        except OSError as error:
            raise HomeUnusable(
                f"The device's folder {self.path} cannot be written to", str(error), "Choose another with --home."
            ) from error

    def key(self) -> SigningKey:
        """Load the device's key.

        Raises:
            HomeUnusable: it is missing, damaged, or open to others.
        """
        try:
            return SigningKey.load(self.key_path)
        except IdentityError as error:
            raise HomeUnusable("The device's key cannot be used", str(error), "Restore it, or enrol anew.") from error

    def make_key(self) -> SigningKey:
        """Load the device's key, having made one where there is none.

        Raises:
            HomeUnusable: it cannot be made, or the one that is there cannot be used.
        """
        try:
            if not self.key_path.exists():
                SigningKey.generate().save(self.key_path)
        except FileExistsError:
            # Another process was faster: its key is the device's.
            return self.key()
        except (OSError, IdentityError) as error:
            raise HomeUnusable("The device's key cannot be made", str(error), "Choose another folder.") from error
        return self.key()

    @property
    def is_enrolled(self) -> bool:
        return self.account_path.exists()

    def account(self) -> Account:
        """Load who the device is to its server.

        Raises:
            NotEnrolled: it has not been enrolled.
            HomeUnusable: what is written there cannot be read.
        """
        try:
            account = msgspec.json.decode(self.account_path.read_bytes(), type=Account)
        except FileNotFoundError as error:
            raise NotEnrolled(
                "This device belongs to no server yet",
                f"there is no {self.account_path}",
                "Run `qflare-edge enroll SERVER --token TOKEN --name NAME` first, with the same --home.",
            ) from error
        except (OSError, msgspec.DecodeError) as error:
            raise HomeUnusable(f"{self.account_path} cannot be read", str(error), "Enrol anew.") from error
        return account

    def save_account(self, account: Account) -> None:
        """Write who the device is to its server, durably, readable by its owner alone."""
        write_file(self.account_path, msgspec.json.format(msgspec.json.encode(account), indent=2) + b"\n")

    def keep_update(self, *, url: str, manifest: UpdateManifest, delta: bytes, key: SigningKey) -> PendingUpdate:
        """Sign an update and write it durably; once this returns, it survives the end of the process and of the power.

        Raises:
            OSError: the disk does not take it.
        """
        manifest_bytes = msgspec.json.encode(manifest)
        signature = key.sign(manifest_bytes, UPDATE_CONTEXT)
        file = self.updates / f"{manifest.assignment_id}.safetensors"
        _write(file, delta, durable=True)
        record = _UpdateRecord(url=url, manifest=manifest_bytes, signature=signature)
        # The record comes second: a file without one was never finished. Its sync of the folder makes both names last.
        write_file(file.with_suffix(".json"), msgspec.json.encode(record))
        return PendingUpdate(url, file, manifest_bytes, signature, manifest)

    def pending_updates(self) -> list[PendingUpdate]:
        """Load the updates to be sent, oldest assignment first; what an interrupted writer left behind is removed.

        Raises:
            HomeUnusable: an update's record cannot be read.
        """
        if not self.updates.is_dir():
            return []
        found = [_read_update(path) for path in self.updates.glob("*.json")]
        # The power may fail after the record's name has reached the disk and before that of its file.
        pending = [update for update in found if update.file.exists()]
        wanted = {path for update in pending for path in (update.file, update.file.with_suffix(".json"))}
        for path in self.updates.iterdir():
            if path not in wanted:
                path.unlink()
        return sorted(pending, key=lambda update: update.assignment_id)

    def forget_update(self, update: PendingUpdate) -> None:
        """Remove an update that the server has answered."""
        update.file.with_suffix(".json").unlink(missing_ok=True)
        update.file.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put a file in place whole, mode 0600: readers see the old one or the new one.

    Args:
        durable: whether it must also survive a power failure; then the folder is synced too.
    """
    partial = path.with_name(f".{path.name}.partial")
    _write(partial, data, durable=durable)
    partial.replace(path)
    if durable:
        _sync_folder(path.parent)


def _write(path: Path, data: bytes, *, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_update(path: Path) -> PendingUpdate:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_UpdateRecord)
        manifest = msgspec.json.decode(record.manifest, type=UpdateManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise HomeUnusable(
            f"The unsent update {path} cannot be read", str(error), "Remove the file; the round goes on without it."
        ) from error
    return PendingUpdate(record.url, path.with_suffix(".safetensors"), record.manifest, record.signature, manifest)
