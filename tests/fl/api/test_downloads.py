"""Weights down: who may have which, and what is answered to one who has them, or a part of them."""

import asyncio
from datetime import timedelta

import pytest
from django.utils import timezone

from edge.weights import weights_digest
from edge.wire import decode
from fl import devices
from fl.api import streaming
from fl.api.streaming import FilePart
from fl.tasks import spec_of_task
from tests.asgi import Asking, body, get
from tests.builders import current_round, participant
from tests.fl.api.conftest import bearer, error_of

# The door works in threads of its own, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def base(training):
    run, _ = training
    return current_round(run).base_model


@pytest.fixture
def device(training):
    _, (device, _) = training
    return device


@pytest.fixture(params=["whole", "in pieces"])
def size_of_pieces(request, monkeypatch):
    """Files are read at once, or few bytes at a time."""
    if request.param == "in pieces":
        monkeypatch.setattr(streaming, "WHOLE_BYTES", 10)
        monkeypatch.setattr(streaming, "CHUNK_BYTES", 100)


@pytest.fixture(params=["a device", "a person"])
def fetch(request, base, device, viewer, size_of_pieces):
    """Return what fetches the same weights by either door."""

    def by_device(method="GET", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return get(f"/api/v1/weights/{base.digest}/", {**bearer(device), **named}, method=method)

    def by_person(method="GET", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        cookie = f"sessionid={viewer.cookies['sessionid'].value}"
        address = f"/api/v1/runs/{base.run_id}/models/{base.version}/weights/"
        return get(address, {"Cookie": cookie, **named}, method=method)

    return by_device if request.param == "a device" else by_person


@pytest.fixture
def data(base, settings):
    return (settings.MEDIA_ROOT / base.file).read_bytes()


# ── what is answered ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_of_them_are_sent_under_their_digest(fetch, base, data):
    response = fetch()

    assert (response.status_code, response.content) == (200, data)
    assert weights_digest(decode(response.content, spec_of_task("linear"))) == base.digest
    assert response.headers["Etag"] == f'"{base.digest}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert "private" in response.headers["Cache-Control"]
    assert int(response.headers["Content-Length"]) == len(data)


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        *(("bytes=0-0", 0, 1), ("bytes=5-", 5, None), ("bytes=10-299", 10, 300), ("bytes=-7", -7, None)),
        *(("bytes=3-999999", 3, None), ("bytes=-999999", 0, None), ("bytes = 0 - 4", 0, 5)),
    ],
)
def test_a_range_is_sent_as_such(fetch, data, wanted, start, end):
    response = fetch(Range=wanted)

    part = data[start:end]
    first = data.index(part) if start == 0 else len(data) + start if start < 0 else start
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(data)}"
    assert int(response.headers["Content-Length"]) == len(part)


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "bytes=", "bytes=-", "bytes=5-2", "lines=1-2", "bytes=a-b"])
def test_what_is_no_single_range_gets_all_of_them(fetch, data, wanted):
    response = fetch(Range=wanted)

    assert (response.status_code, response.content) == (200, data)


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(fetch, data, wanted):
    response = fetch(Range=wanted)

    assert (response.status_code, error_of(response)) == (416, "range_not_satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(data)}"


def test_a_transfer_goes_on_only_if_the_weights_are_still_those(fetch, base, data):
    same = fetch(Range="bytes=5-", If_Range=f'"{base.digest}"')
    other = fetch(Range="bytes=5-", If_Range='"other"')
    dated = fetch(Range="bytes=5-", If_Range="Wed, 21 Oct 2015 07:28:00 GMT")

    assert (same.status_code, same.content) == (206, data[5:])
    assert (other.status_code, other.content) == (dated.status_code, dated.content) == (200, data)


@pytest.mark.parametrize("tags", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_one_who_has_them_is_not_sent_them_again(fetch, base, tags):
    response = fetch(If_None_Match=tags.format(base.digest), Range="bytes=0-4")

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["Etag"] == f'"{base.digest}"'


def test_head_is_answered_as_get_is_but_for_the_bytes(fetch, data):
    response, full = fetch("HEAD"), fetch()

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers == full.headers
    assert int(response.headers["Content-Length"]) == len(data)


# ── who may have which ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_outside_the_cohort_fetches_models_of_the_tasks_that_it_offers(base, data):
    same_task = participant().connect(timezone.now())
    never_connected = participant()

    allowed = get(f"/api/v1/weights/{base.digest}/", bearer(same_task))
    refused = get(f"/api/v1/weights/{base.digest}/", bearer(never_connected))

    assert (allowed.status_code, allowed.content) == (200, data)
    assert (refused.status_code, error_of(refused)) == (404, "not_found")


def test_a_device_that_offers_the_task_no_more_still_finishes_its_assignment(base, device, data):
    device.device.tasks.all().delete()

    assert get(f"/api/v1/weights/{base.digest}/", bearer(device)).content == data


@pytest.mark.parametrize("digest", ["0" * 64, "x", "best"])
def test_weights_that_do_not_exist_answer_404(device, digest):
    response = get(f"/api/v1/weights/{digest}/", bearer(device))

    assert (response.status_code, error_of(response)) == (404, "not_found")


def test_nobody_without_a_device_s_valid_token_is_let_in(base, device):
    address = f"/api/v1/weights/{base.digest}/"
    expired = bearer(device, timezone.now() - timedelta(hours=1))
    answers = [get(address, headers) for headers in ({}, {"Authorization": "Bearer x"}, expired)]
    devices.suspend(device=device.device, reason="", now=timezone.now(), by=None)
    answers.append(get(address, bearer(device)))

    assert {response.status_code for response in answers} == {401}
    assert [error_of(response) for response in answers[2:]] == ["token_expired", "device_barred"]


def test_weights_are_fetched_and_nothing_else(base, device):
    response = get(f"/api/v1/weights/{base.digest}/", bearer(device), method="DELETE")

    assert (response.status_code, error_of(response)) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, HEAD"


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def opened(monkeypatch):
    """Return the parts of files that were opened, and let all be read in pieces."""
    monkeypatch.setattr(streaming, "WHOLE_BYTES", 10)
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 100)
    files = []
    open_file = streaming.open_file

    def noted(name):
        files.append(open_file(name))
        return files[-1]

    monkeypatch.setattr("fl.api.downloads.open_file", noted)
    return files


def test_a_reader_that_leaves_is_read_no_more_for(base, device, opened):
    asked = Asking("GET", f"/api/v1/weights/{base.digest}/", {"Host": "x", **bearer(device)}, body(b""))

    async def first_piece_then_gone(message, send=asked.send):
        await send(message)
        if message["type"] == "http.response.body":
            asked.leave()
            await asyncio.sleep(0)

    asked.send = first_piece_then_gone
    assert len(asyncio.run(asked.answer()).content) < base.size

    assert [file.closed for file in opened] == [True]


def test_a_file_is_closed_when_all_of_it_is_sent(base, device, opened, data):
    assert get(f"/api/v1/weights/{base.digest}/", bearer(device)).content == data

    assert [file.closed for file in opened] == [True]


def test_a_file_that_is_shorter_than_it_should_be_is_an_error_and_no_end(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"12345")

    part = FilePart(path.open("rb"), 0, 10)

    assert part.read() == b"12345"
    with pytest.raises(EOFError):
        part.read()
    part.close()
