"""Files go down in chunks under ASGI, and are closed whatever happens."""

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.utils import timezone

from fl.api.streaming import CHUNK_BYTES, StreamedFile
from tests.builders import current_round
from tests.fl.api.conftest import bearer


@pytest.fixture
def large_file(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (CHUNK_BYTES // 256 * 3) + b"end")
    return path


async def test_a_large_file_is_never_in_memory_as_a_whole(large_file):
    file = large_file.open("rb")
    response = StreamedFile(file)

    chunks = [chunk async for chunk in response]

    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES] * 3 + [3]
    assert b"".join(chunks) == large_file.read_bytes()
    response.close()
    assert file.closed


async def test_a_file_that_nobody_waits_for_any_more_is_closed(large_file):
    file = large_file.open("rb")
    chunks = aiter(StreamedFile(file))
    await anext(chunks)

    await chunks.aclose()

    assert file.closed


def test_the_same_file_goes_down_without_a_loop(large_file):
    with large_file.open("rb") as file:
        assert StreamedFile(file).getvalue() == large_file.read_bytes()


@pytest.mark.django_db(transaction=True)
def test_weights_go_down_through_the_whole_asgi_application(training):
    run, (device, _) = training
    model = current_round(run).base_model
    headers = bearer(device, timezone.now())

    sent = fetch(f"/api/v1/weights/{model.digest}/", headers)

    start, *bodies = sent
    assert start["status"] == 200
    assert dict(start["headers"])[b"Content-Length"] == str(model.size).encode()
    assert sum(len(message.get("body", b"")) for message in bodies) == model.size
    assert [message.get("more_body", False) for message in bodies][-1] is False


def fetch(path, headers):
    """GET a path through Django's ASGI handler in a loop of its own; return what it sends."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
    }

    async def run():
        communicator = ApplicationCommunicator(ASGIHandler(), scope)
        await communicator.send_input({"type": "http.request", "body": b""})
        sent = [await communicator.receive_output(timeout=60)]
        while sent[-1]["type"] != "http.response.body" or sent[-1].get("more_body"):
            sent.append(await communicator.receive_output(timeout=60))
        await communicator.wait(timeout=60)
        return sent

    return async_to_sync(run)()
