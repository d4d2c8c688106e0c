"""Bodies of updates on their way from the server to the door: whole or in pieces, and no faster than they are kept."""

import asyncio
import errno
import threading

import pytest
from django.utils import timezone

from edge.wire import encode
from fl.files import ReceivedFile
from fl.models import Update
from qflare import uploads
from tests.asgi import GONE, Asking, body
from tests.builders import fleet, started_run, step
from tests.fl.api.conftest import bearer, error_of, signed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def device(transactional_db, settings, tmp_path):
    """A device whose assignment is open."""
    settings.MEDIA_ROOT = tmp_path / "files"
    now = timezone.now()
    first, _ = fleet(2, now=now)
    step(started_run(now), now)
    return first


@pytest.fixture
def incoming(settings):
    """Return the files that are still on their way."""
    return lambda: list((settings.MEDIA_ROOT / "incoming").glob("*"))


@pytest.fixture
def small_chunks(monkeypatch):
    """Let a body of a few hundred bytes be a large one."""
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 64)


def asking(device, messages, data=b"", method="PUT", **changes):
    headers = {**signed(device, device.manifest(data)), "Content-Length": len(data), "Host": "testserver", **changes}
    return Asking(method, f"/api/v1/assignments/{device.assignment().pk}/update/", headers, messages)


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def answer(asked):
    return asyncio.run(asked.answer())


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_a_large_body_is_accepted_as_it_was_sent_however_it_is_cut(device, incoming, settings, small_chunks, size):
    data = encode(device.train()[0])

    answered = answer(asking(device, body(*pieces(data, size)), data))

    assert (answered.status_code, answered.json()["state"]) == (200, "accepted")
    assert (settings.MEDIA_ROOT / Update.objects.get().file).read_bytes() == data
    assert incoming() == []


@pytest.mark.parametrize("size", [10, 1000])
@pytest.mark.parametrize("authorization", ["", "Basic eA==", "Bearer none"])
def test_no_byte_of_a_body_is_read_before_its_sender_is_known(device, incoming, small_chunks, size, authorization):
    asked = asking(device, body(b"x" * size), b"x" * size, Authorization=authorization)

    answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (401, "not_authenticated")
    assert answered.headers["Www-Authenticate"].startswith("Bearer")
    assert asked.received == 0
    assert incoming() == []


def test_a_body_that_says_it_is_too_large_is_refused_before_a_byte_is_read(device, incoming):
    asked = asking(device, [], b"", **{"Content-Length": 10**12})

    answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (413, "too_large")
    assert asked.received == 0
    assert incoming() == []


def test_a_body_that_grows_beyond_the_model_is_refused_on_the_way(device, incoming, small_chunks):
    asked = asking(device, body(*[b"x" * 50_000] * 10), b"x" * 100)

    answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (413, "too_large")
    assert asked.received < 5
    assert incoming() == []
    assert device.assignment().state == "rejected"


@pytest.mark.parametrize("chunk_bytes", [64, uploads.CHUNK_BYTES])
def test_a_sender_that_leaves_has_sent_nothing_and_may_send_again(device, incoming, monkeypatch, chunk_bytes):
    monkeypatch.setattr(uploads, "CHUNK_BYTES", chunk_bytes)
    data = encode(device.train()[0])
    cut = [*body(data[:100], data[100:200], data[200:])[:2], GONE]

    assert answer(asking(device, cut, data)) is None

    assert incoming() == []
    assert device.assignment().state == "assigned"
    assert answer(asking(device, body(data), data)).status_code == 200


def test_no_more_is_asked_for_than_two_pieces_ahead_of_what_is_written(device, monkeypatch, incoming):
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 10_000)
    data = b"x" * 50_000
    written = []

    def messages():
        for message in body(*pieces(data, 10_000)):
            written.append(sum(file.stat().st_size for file in incoming()))
            yield message

    answered = answer(asking(device, messages(), data))

    assert error_of(answered) == "bad_header"
    assert len(written) == 5
    assert all(on_disk >= 10_000 * (asked - 2) for asked, on_disk in enumerate(written))


def test_pieces_that_come_just_when_the_thread_looks_for_more_are_written(device, monkeypatch, settings):
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 1)
    data = encode(device.train()[0])
    write, written = ReceivedFile.write, []
    monkeypatch.setattr(ReceivedFile, "write", lambda file, chunk: (write(file, chunk), written.append(chunk)))
    asked = asking(device, body(*pieces(data, 1)), data)
    receive = asked.receive

    async def receive_when_all_is_written():
        while len(written) < asked.received:  # noqa: ASYNC110 - an event would come later than the thread looks
            await asyncio.sleep(0)
        return await receive()

    asked.receive = receive_when_all_is_written

    assert answer(asked).status_code == 200

    assert (settings.MEDIA_ROOT / Update.objects.get().file).read_bytes() == data


def test_a_full_disk_is_told_and_nothing_of_the_update_stays(device, monkeypatch, incoming, small_chunks, caplog):
    data = encode(device.train()[0])

    def write(received, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(ReceivedFile, "write", write)
        asked = asking(device, body(*pieces(data, 64)), data)
        answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (500, "server_error")
    assert asked.received < 10
    assert "No space left on device" in caplog.text
    assert incoming() == []
    assert answer(asking(device, body(data), data)).status_code == 200


def test_what_is_being_written_is_removed_only_then_though_its_request_was_cancelled(
    device, incoming, small_chunks, monkeypatch
):
    data = encode(device.train()[0])
    write, discard, done, go_on = ReceivedFile.write, ReceivedFile.discard, [], threading.Event()
    monkeypatch.setattr(ReceivedFile, "discard", lambda file: (done.append("discarded"), discard(file)))

    def write_when_told(file, chunk):
        go_on.wait()
        write(file, chunk)
        done.append("written")

    monkeypatch.setattr(ReceivedFile, "write", write_when_told)
    asked = asking(device, body(data), data)

    async def cancel_while_it_is_written():
        answering = asyncio.create_task(asked.answer())
        while not asked.received:  # noqa: ASYNC110 - it is the server's to ask, and tells nobody
            await asyncio.sleep(0.01)
        for turn in range(1000):
            if turn == 500:
                answering.cancel()
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([answering])

    asyncio.run(cancel_while_it_is_written())

    assert done == ["written", "discarded"]
    assert incoming() == []


def test_who_sends_again_need_not_wait_until_the_second_copy_is_gone(device, incoming, small_chunks):
    data = encode(device.train()[0])
    assert answer(asking(device, body(data), data)).status_code == 200
    asked, left = asking(device, body(*pieces(data, 64)), data), []
    send = asked.send

    async def send_and_look(message):
        left.append(len(incoming()))
        await send(message)

    asked.send = send_and_look

    assert answer(asked).json()["state"] == "accepted"
    assert left == [1, 1]
    assert incoming() == []


def test_what_nobody_expected_is_told_in_the_one_shape_and_logged(device, settings, tmp_path, caplog):
    data = encode(device.train()[0])
    asked = asking(device, body(data), data)
    settings.MEDIA_ROOT = tmp_path / "no folder"
    settings.MEDIA_ROOT.write_text("a file")

    answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (500, "server_error")
    assert "could not be taken" in caplog.text
    assert device.assignment().state == "assigned"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_an_update_is_put_and_nothing_else(device, method):
    answered = answer(asking(device, body(b""), method=method))

    assert (answered.status_code, error_of(answered)) == (405, "method_not_allowed")
    assert answered.headers["Allow"] == "PUT"


@pytest.mark.parametrize("path", ["/api/v1/assignments/x/update/", "/api/v1/assignments/1/update", "/api/v1/nothing/"])
def test_other_addresses_are_django_s(device, path):
    asked = Asking("PUT", path, {"Host": "localhost", "Content-Length": 0, **bearer(device)}, body(b""))

    answered = answer(asked)

    assert (answered.status_code, error_of(answered)) == (404, "not_found")
