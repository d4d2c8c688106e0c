"""Files of weights: written, fsynced and renamed before the row that names them; swept when no row does."""

import hashlib
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage

logger = logging.getLogger(__name__)

WRITE_OUT_BYTES = 32 * 1024 * 1024
"""How much of a file that is arriving is there before the disk is asked to take it."""

_deleter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="delete")
_writer_out = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-out")


class DurableFileSystemStorage(FileSystemStorage):
    """A folder in which a file is there whole or not at all, also after a power cut; saving again replaces it."""

    def _save(self, name: str, content: "File[bytes]") -> str:
        path = Path(self.path(name))
        _make_folder(path.parent)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("wb") as file:
                for chunk in content.chunks():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return name

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Keep the name: ours are content addresses, so a file of the same name has the same content."""
        return name


class ReceivedFile:
    """A file that is arriving: chunks go to a temporary file, which takes its name in storage when `keep` is called.

    A long one is written out to the disk in the background as it comes, so that the end has little left to wait for.

    Attributes:
        size: bytes that have arrived.
    """

    def __init__(self) -> None:
        folder = incoming_folder()
        self.path = folder / f"{secrets.token_hex(8)}.partial"
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._written_out = 0
        self._writing_out: Future[None] | None = None

    def write(self, chunk: bytes) -> None:
        """Add bytes; nothing is on the disk before the first ones.

        Raises:
            OSError: these, or earlier ones, could not be written.
        """
        if self._file is None:
            _make_folder(self.path.parent)
            self._file = self.path.open("wb")
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)
        if self.size - self._written_out >= WRITE_OUT_BYTES and (self._writing_out is None or self._writing_out.done()):
            self._await_writing_out()
            self._file.flush()
            self._writing_out = _writer_out.submit(os.fsync, self._file.fileno())
            self._written_out = self.size

    def complete(self) -> None:
        """Write out what has arrived: from now on it is read and kept, and nothing is added.

        Raises:
            OSError: it could not be written.
        """
        self.write(b"")
        if self._file is not None:
            self._await_writing_out()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of what has arrived, in hexadecimal."""
        return self._hash.hexdigest()

    def keep(self, name: str) -> str:
        """Move the file to its name in storage, durably, and return the name."""
        if isinstance(default_storage, FileSystemStorage):
            target = Path(default_storage.path(name))
            _make_folder(target.parent)
            self.path.replace(target)
            _sync_folder(target.parent)
            return name
        with self.path.open("rb") as file:
            return default_storage.save(name, File(file))

    def discard(self) -> None:
        """Remove the file unless it was kept."""
        if self._file is not None:
            if self._writing_out is not None:
                wait([self._writing_out])  # it has the number of the file, which another may have once this is closed
            self._file.close()
            self.path.unlink(missing_ok=True)

    def _await_writing_out(self) -> None:
        # The system tells of a disk that failed only once: the fsync of the end would hear nothing of it.
        if self._writing_out is not None:
            self._writing_out.result()


def incoming_folder() -> Path:
    """Return the folder of files that are still arriving, on the same disk as the storage."""
    return Path(settings.MEDIA_ROOT) / "incoming"


def save_bytes(name: str, data: bytes) -> str:
    """Write bytes to a name in storage, durably."""
    return default_storage.save(name, ContentFile(data))


def local_path(name: str) -> Path:
    """Return the path of a file in storage."""
    return Path(default_storage.path(name))


def open_file(name: str) -> IO[bytes]:
    """Open a file in storage for reading."""
    file: IO[bytes] = default_storage.open(name, "rb")
    return file


def delete(names: Iterable[str]) -> None:
    """Delete files; those already gone are no error."""
    for name in names:
        default_storage.delete(name)


def delete_soon(names: Sequence[str]) -> None:
    """Delete files in the background, off a round's way; what a dying process leaves is swept."""
    _deleter.submit(_delete_or_tell, names)


def _delete_or_tell(names: Sequence[str]) -> None:
    try:
        delete(names)
    except OSError:
        logger.exception("files could not be deleted; they are swept later: %s", ", ".join(names))


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
