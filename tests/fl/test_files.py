"""Files of weights: whole or not there, of one name for one content, and gone when let go of."""

import hashlib

import pytest
from django.core.exceptions import SuspiciousFileOperation

from fl import files
from tests.fl.threads import eventually


class Cut(Exception):
    """The bytes stop coming."""


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
