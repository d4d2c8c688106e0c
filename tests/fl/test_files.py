"""Files of weights: whole or not there, of one name for one content, and gone when let go of."""

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

    size = received.receive([b"abc", b"", b"de"], limit=5, too_large=ValueError)
    name = received.keep("updates/1/2-digest")

    assert size == 5
    assert files.local_path(name).read_bytes() == b"abcde"
    assert names(files.incoming_folder()) == []
    received.discard()
    assert files.local_path(name).exists()


def test_too_many_bytes_are_noticed_at_once():
    received, taken = files.ReceivedFile(), []

    def chunks():
        for number in range(100):
            taken.append(number)
            yield b"xxx"

    with pytest.raises(ValueError, match="6"):
        received.receive(chunks(), limit=5, too_large=lambda size: ValueError(size))

    assert taken == [0, 1]
    received.discard()
    assert names(files.incoming_folder()) == []


def test_a_file_that_stops_coming_leaves_nothing_once_discarded():
    received = files.ReceivedFile()

    def chunks():
        yield b"abc"
        raise Cut

    with pytest.raises(Cut):
        received.receive(chunks(), limit=5, too_large=ValueError)

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
