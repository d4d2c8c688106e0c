"""Updates up: what the door checks before, while and after an update arrives, through the whole application."""

import hashlib
from base64 import b64encode
from datetime import timedelta

import msgspec
import pytest
import torch
from django.utils import timezone

from edge.identity import UPDATE_CONTEXT
from edge.protocol.http import UpdateReceipt
from edge.wire import encode, max_size
from fl import runs
from fl.models import Update
from fl.tasks import spec_of_task
from tests.asgi import put
from tests.fl.api.conftest import bearer, error_of, signed

# The door works in threads of its own, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


def send(device, data, manifest=None, **changes):
    """PUT an update; headers of `changes` replace the honest ones, None takes one away."""
    headers = {**signed(device, device.manifest(data) if manifest is None else manifest), **changes}
    return put(f"/api/v1/assignments/{device.assignment().pk}/update/", data, headers)


def assert_rejected(device, response, status, code, incoming):
    """The answer says why, the rows say why, nothing is left on disk, and the run goes on."""
    assert (response.status_code, error_of(response)) == (status, code)
    message = response.json()["error"]["message"]
    assignment = device.assignment()
    update = Update.objects.get(assignment=assignment)
    assert (assignment.state, assignment.reason) == ("rejected", message)
    assert (update.state, update.code, update.reason, update.file) == ("rejected", code, message, "")
    assert incoming() == []
    assert assignment.round.run.state == "running"
    assert assignment.round.run.models.count() == 1


def test_an_update_is_accepted_and_kept_as_it_was_signed(training, incoming, settings):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    response = send(device, data, manifest)

    receipt = msgspec.json.decode(response.content, type=UpdateReceipt)
    update = Update.objects.get()
    assert (response.status_code, receipt.state, receipt.assignment_id) == (200, "accepted", device.assignment().pk)
    assert bytes(update.manifest) == manifest
    assert (settings.MEDIA_ROOT / update.file).read_bytes() == data
    assert incoming() == []


def test_sending_again_answers_the_same(training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    first, again = send(device, data, manifest), send(device, data, manifest)

    assert first.content == again.content
    assert Update.objects.count() == 1
    assert incoming() == []


def test_an_update_after_the_round_is_late(training, incoming):
    run, (device, _) = training
    data = encode(device.train()[0])
    runs.stop_run(run=run, now=timezone.now())

    receipt = msgspec.json.decode(send(device, data).content, type=UpdateReceipt)

    assert receipt.state == "late"
    assert incoming() == []


def test_more_bytes_than_the_model_has_are_refused_before_they_are_read(training, incoming):
    _, (device, _) = training
    data = b"x" * (max_size(spec_of_task("linear")) + 1)

    response = send(device, data)

    assert_rejected(device, response, 413, "too_large", incoming)


def test_a_body_of_unknown_length_is_refused(training, incoming):
    _, (device, _) = training

    response = send(device, encode(device.train()[0]), **{"Content-Length": None})

    assert_rejected(device, response, 411, "length_required", incoming)


def test_a_compressed_body_is_refused(training, incoming):
    _, (device, _) = training

    response = send(device, encode(device.train()[0]), **{"Content-Encoding": "gzip"})

    assert_rejected(device, response, 415, "encoded_body", incoming)


@pytest.mark.parametrize("header", ["X-QFLARE-Manifest", "X-QFLARE-Signature"])
@pytest.mark.parametrize("value", [None, "", "no base64!"])
def test_an_update_without_its_manifest_or_signature_is_refused(training, incoming, header, value):
    _, (device, _) = training

    response = send(device, encode(device.train()[0]), **{header: value})

    assert_rejected(device, response, 422, "bad_header", incoming)


def test_a_truncated_update_is_refused(training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])

    response = send(device, data[:-4], device.manifest(data))

    assert_rejected(device, response, 422, "wrong_size", incoming)


def test_an_update_with_other_bytes_than_were_signed_is_refused(training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    response = send(device, data[:-1] + bytes([data[-1] ^ 1]), manifest)

    assert_rejected(device, response, 422, "wrong_digest", incoming)


def test_an_update_that_another_device_signed_is_refused(training, incoming):
    _, (device, other) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)
    signature = b64encode(other.key.sign(manifest, UPDATE_CONTEXT)).decode()

    response = send(device, data, manifest, **{"X-QFLARE-Signature": signature})

    assert_rejected(device, response, 422, "bad_signature", incoming)


def test_a_wrong_shape_is_refused(training, incoming):
    _, (device, _) = training
    delta = {name: torch.zeros([2, *tensor.shape]) for name, tensor in device.train()[0].items()}

    response = send(device, encode(delta))

    assert_rejected(device, response, 422, "wrong_shape", incoming)


def test_a_value_that_is_not_finite_is_refused(training, incoming):
    _, (device, _) = training
    delta = {name: torch.full_like(tensor, torch.nan) for name, tensor in device.train()[0].items()}

    response = send(device, encode(delta))

    assert_rejected(device, response, 422, "not_finite", incoming)


def test_another_update_for_the_same_assignment_is_refused_and_the_first_one_stays(training):
    _, (device, _) = training
    data = encode(device.train()[0])
    send(device, data)

    response = send(device, data, device.manifest(data, num_examples=41))

    assert (response.status_code, error_of(response)) == (409, "conflict")
    assert Update.objects.get().digest == hashlib.sha256(data).hexdigest()
    assert device.assignment().state == "accepted"


def test_a_device_sends_nothing_for_another(training, incoming):
    _, (device, other) = training
    data = encode(device.train()[0])
    headers = signed(other, device.manifest(data))

    response = put(f"/api/v1/assignments/{device.assignment().pk}/update/", data, headers)

    assert (response.status_code, error_of(response)) == (404, "not_found")
    assert device.assignment().state == "assigned"
    assert incoming() == []


# ── who may send ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("authorization", [None, "Bearer ", "Bearer none", "Basic YTpi"])
def test_who_shows_no_device_s_token_is_refused_and_told_what_to_show(training, incoming, authorization):
    _, (device, _) = training

    response = send(device, b"x", **{"Authorization": authorization})

    assert (response.status_code, error_of(response)) == (401, "not_authenticated")
    assert response.headers["Www-Authenticate"] == 'Bearer realm="qflare"'
    assert incoming() == []
    assert device.assignment().state == "assigned"


def test_a_token_past_its_time_is_refused(training):
    _, (device, _) = training
    old = bearer(device, timezone.now() - timedelta(days=1))

    response = send(device, b"x", **old)

    assert (response.status_code, error_of(response)) == (401, "token_expired")
