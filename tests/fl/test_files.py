"""Files of weights: whole or not there, of one name for one content, and gone when let go of."""

import errno
import hashlib
import os
import stat
import threading

import pytest
from django.core.exceptions import SuspiciousFileOperation

from fl import files
from tests.fl.threads import eventually


class Cut(Exception):
    """The bytes stop coming."""


class Synced(list):
    """The sizes of the files of which all was written out, one after another.

    Attributes:
        failing: how many of the next fail.
        begun, go_on: one has begun; it may go on.
    """

    def __init__(self, fsync):
        super().__init__()
        self._fsync = fsync
        self.failing = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def sync(self, descriptor):
        if stat.S_ISDIR((found := os.fstat(descriptor)).st_mode):
            self._fsync(descriptor)
            return
        self.begun.set()
        self.go_on.wait()
        if self.failing:
            self.failing -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._fsync(descriptor)
        self.append(found.st_size)


@pytest.fixture
def synced(monkeypatch):
    """Watch what is written out, and let a test have it fail or wait."""
    watched = Synced(os.fsync)
    monkeypatch.setattr(os, "fsync", watched.sync)
    return watched


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_saved_bytes_are_there_whole_under_their_name():
    name = files.save_bytes("models/abc.safetensors", b"weights")

    assert name == "models/abc.safetensors"
    assert files.local_path(name).read_bytes() == b"weights"
    with files.open_file(name) as file:
        assert file.read() == b"weights"
    assert names(files.local_path("models")) == ["abc.safetensors"]


def test_saving_again_replaces_and_keeps_the_name():
    files.save_bytes("models/abc", b"first")

    assert files.save_bytes("models/abc", b"second") == "models/abc"
    assert files.local_path("models/abc").read_bytes() == b"second"


def test_a_reader_of_the_old_content_keeps_it():
    files.save_bytes("models/abc", b"first")

    with files.open_file("models/abc") as file:
        files.save_bytes("models/abc", b"second")
        assert file.read() == b"first"


def test_a_received_file_is_moved_to_its_name():
    received = files.ReceivedFile()

    for chunk in (b"abc", b"", b"de"):
        received.write(chunk)
    received.complete()
    assert (received.size, received.digest) == (5, hashlib.sha256(b"abcde").hexdigest())
    name = received.keep("updates/1/2-digest")

    assert files.local_path(name).read_bytes() == b"abcde"
    assert names(files.incoming_folder()) == []
    received.discard()
    assert files.local_path(name).exists()


def test_an_empty_file_is_a_file():
    received = files.ReceivedFile()

    received.complete()

    assert files.local_path(received.keep("updates/1/2-digest")).read_bytes() == b""


def test_before_its_first_bytes_nothing_is_on_the_disk():
    received = files.ReceivedFile()

    assert not received.path.exists()
    received.discard()


def test_a_file_that_stops_coming_leaves_nothing_once_discarded():
    received = files.ReceivedFile()
    received.write(b"abc")

    received.discard()
    received.discard()

    assert names(files.incoming_folder()) == []


def test_a_long_file_is_written_out_while_it_comes(synced, monkeypatch):
    monkeypatch.setattr(files, "WRITE_OUT_BYTES", 10)
    received = files.ReceivedFile()

    received.write(b"123456789")
    assert synced == []
    received.write(b"0")
    eventually(lambda: synced == [10])
    received.write(b"123456789")
    received.complete()

    assert synced == [10, 19]
    assert files.local_path(received.keep("updates/1/2-digest")).read_bytes() == b"1234567890123456789"


@pytest.mark.parametrize("more", [b"", b"1234567890"])
def test_a_disk_that_failed_on_the_way_is_told_though_the_system_tells_it_once(synced, monkeypatch, more):
    monkeypatch.setattr(files, "WRITE_OUT_BYTES", 10)
    received = files.ReceivedFile()
    synced.failing = 1
    received.write(b"1234567890")
    eventually(lambda: synced.failing == 0)

    with pytest.raises(OSError, match="Input/output error"):
        received.write(more)
        received.complete()

    received.discard()
    assert names(files.incoming_folder()) == []


def test_a_file_is_closed_only_when_nothing_is_written_out_of_it(synced, monkeypatch):
    monkeypatch.setattr(files, "WRITE_OUT_BYTES", 10)
    received = files.ReceivedFile()
    synced.go_on.clear()
    received.write(b"1234567890")
    discarding = threading.Thread(target=received.discard)
    discarding.start()
    synced.begun.wait()
    assert received.path.exists()

    synced.go_on.set()
    discarding.join()

    assert synced == [10]
    assert names(files.incoming_folder()) == []


def test_a_name_outside_the_storage_is_refused():
    with pytest.raises(SuspiciousFileOperation):
        files.save_bytes("../outside", b"x")


def test_deleting_what_is_gone_is_no_error():
    files.save_bytes("updates/a", b"x")

    files.delete(["updates/a", "updates/a", "updates/never"])

    assert names(files.local_path("updates")) == []


def test_files_are_deleted_soon():
    files.save_bytes("updates/a", b"x")
    files.save_bytes("updates/b", b"x")

    files.delete_soon(["updates/a", "updates/b"])

    eventually(lambda: not names(files.local_path("updates")))
