"""What devices need over HTTP: a way in, weights down, updates up."""

import hashlib
from base64 import b64decode, b64encode
from datetime import timedelta

import msgspec
import pytest
import torch
from django.utils import timezone

from edge.identity import ALGORITHM, ENROLL_CONTEXT, RECEIPT_CONTEXT, UPDATE_CONTEXT, SigningKey, fingerprint_of, verify
from edge.protocol import PROTOCOL
from edge.protocol.http import SIGNATURE_HEADER, EnrollmentReceipt, EnrollmentRequest, ServerIdentity, UpdateReceipt
from edge.weights import weights_digest
from edge.wire import decode, encode, max_size
from fl import devices, runs
from fl.models import Assignment, Device, EnrollmentToken, Update
from fl.tasks import spec_of_task
from tests.builders import current_round, participant
from tests.fl.api.conftest import bearer, error_of, signed

pytestmark = pytest.mark.django_db


@pytest.fixture
def incoming(settings):
    """Return the files that are still on their way."""
    return lambda: list((settings.MEDIA_ROOT / "incoming").glob("*"))


# ── who the server is ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_everybody_may_ask_who_the_server_is(anybody):
    identity = msgspec.json.decode(anybody.get("/api/v1/server/").content, type=ServerIdentity)

    assert (identity.protocol, identity.algorithm) == (PROTOCOL, ALGORITHM)
    assert fingerprint_of(b64decode(identity.public_key)) == identity.fingerprint


# ── the way in ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Newcomer:
    """A device that wants in."""

    def __init__(self, *, lifetime=timedelta(hours=1), auto_approve=True):
        self.key = SigningKey.generate()
        now = timezone.now()
        if lifetime < timedelta(0):
            now, lifetime = now + 2 * lifetime, -lifetime
        _, self.token = devices.issue_token(
            label="", auto_approve=auto_approve, lifetime=lifetime, created_by=None, now=now
        )

    def request(self, **changes):
        wanted = EnrollmentRequest(
            protocol=PROTOCOL,
            algorithm=ALGORITHM,
            token_id=self.token.id,
            token_secret=self.token.secret,
            public_key=b64encode(self.key.public_key).decode(),
            name="newcomer",
        )
        return msgspec.json.encode(msgspec.structs.replace(wanted, **changes))

    def ask(self, client, *, signature=None, key=None, context=ENROLL_CONTEXT, **changes):
        body = self.request(**changes)
        signature = b64encode((key or self.key).sign(body, context)).decode() if signature is None else signature
        return client.post("/api/v1/enroll/", body, headers={SIGNATURE_HEADER: signature})


def test_a_device_is_let_in_and_gets_a_receipt_that_the_server_signed(anybody):
    newcomer = Newcomer()

    response = newcomer.ask(anybody)

    receipt = msgspec.json.decode(response.content, type=EnrollmentReceipt)
    device = Device.objects.get()
    assert response.status_code == 201
    assert (receipt.device_id, receipt.name, receipt.state) == (device.pk, "newcomer", "active")
    assert receipt.device_fingerprint == newcomer.key.fingerprint == device.fingerprint
    assert receipt.server_fingerprint == newcomer.token.fingerprint
    server_key = b64decode(receipt.server_public_key)
    assert fingerprint_of(server_key) == newcomer.token.fingerprint
    verify(server_key, b64decode(response.headers[SIGNATURE_HEADER]), response.content, RECEIPT_CONTEXT)


def test_the_same_request_answers_the_same(anybody):
    newcomer = Newcomer(auto_approve=False)

    first, again = newcomer.ask(anybody), newcomer.ask(anybody)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.content == again.content
    assert Device.objects.get().state == "pending"


def test_an_unknown_a_used_and_an_expired_token_answer_alike(anybody):
    used = Newcomer()
    used.ask(anybody)
    used.key = SigningKey.generate()
    expired = Newcomer(lifetime=-timedelta(hours=1))

    answers = [
        used.ask(anybody, name="second"),
        expired.ask(anybody),
        Newcomer().ask(anybody, token_id="0" * 12),
        Newcomer().ask(anybody, token_secret="guess"),
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert {error_of(answer) for answer in answers} == {"token_refused"}
    assert len({answer.content for answer in answers}) == 1
    assert Device.objects.count() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"signature": ""},
        {"signature": "no base64!"},
        {"signature": b64encode(b"x" * 3309).decode()},
        {"context": UPDATE_CONTEXT},
    ],
)
def test_who_does_not_have_the_key_is_refused_and_the_token_stays_good(anybody, wrong):
    newcomer = Newcomer()

    response = newcomer.ask(anybody, **wrong)

    assert (response.status_code, error_of(response)) == (403, "bad_signature")
    assert EnrollmentToken.objects.get().used_at is None
    assert not Device.objects.exists()


def test_a_signature_of_another_key_is_refused(anybody):
    response = Newcomer().ask(anybody, key=SigningKey.generate())

    assert error_of(response) == "bad_signature"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"protocol": "qflare.v0"}, 422, "invalid"),
        ({"algorithm": "RSA"}, 422, "invalid"),
        ({"name": " "}, 422, "invalid"),
        ({"public_key": "?"}, 422, "invalid"),
        ({"name": "n" * 20_000}, 413, "too_large"),
    ],
)
def test_an_enrolment_that_cannot_be_is_refused_with_its_reason(anybody, changes, status, code):
    response = Newcomer().ask(anybody, **changes)

    assert (response.status_code, error_of(response)) == (status, code)
    assert not Device.objects.exists()


@pytest.mark.parametrize(("body", "status", "code"), [("{", 400, "parse_error"), ('{"name": "x"}', 422, "invalid")])
def test_a_body_that_is_no_enrolment_is_refused(anybody, body, status, code):
    response = anybody.post("/api/v1/enroll/", body)

    assert (response.status_code, error_of(response)) == (status, code)


def test_a_taken_name_is_refused(anybody):
    participant("newcomer")

    response = Newcomer().ask(anybody)

    assert (response.status_code, error_of(response)) == (409, "device_exists")


def test_who_guesses_tokens_has_to_wait(anybody):
    newcomer = Newcomer()
    for _ in range(20):
        assert newcomer.ask(anybody, token_secret="guess").status_code == 403

    response = newcomer.ask(anybody, token_secret="guess")

    assert (response.status_code, error_of(response)) == (429, "throttled")
    assert 1 <= int(response.headers["Retry-After"]) <= 60


def test_a_header_does_not_make_another_address_of_one(anybody):
    newcomer = Newcomer()
    for number in range(20):
        body = newcomer.request(token_secret="guess")
        signature = b64encode(newcomer.key.sign(body, ENROLL_CONTEXT)).decode()
        headers = {SIGNATURE_HEADER: signature, "X-Forwarded-For": f"10.0.0.{number}"}
        anybody.post("/api/v1/enroll/", body, headers=headers)

    assert newcomer.ask(anybody).status_code == 429


def test_a_large_fleet_does_not_have_to_wait(anybody):
    for number in range(25):
        assert Newcomer().ask(anybody, name=f"device {number}").status_code == 201


# ── weights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_fetches_the_weights_it_starts_from(anybody, training):
    run, (device, _) = training
    base = current_round(run).base_model

    response = anybody.get(f"/api/v1/weights/{base.digest}/", headers=bearer(device))
    data = response.getvalue()

    assert response.status_code == 200
    assert weights_digest(decode(data, spec_of_task("linear"))) == base.digest
    assert response.headers["ETag"] == f'"{base.digest}"'
    assert int(response.headers["Content-Length"]) == len(data)


def test_a_device_with_the_weights_does_not_fetch_them_again(anybody, training):
    run, (device, _) = training
    digest = current_round(run).base_model.digest

    response = anybody.get(f"/api/v1/weights/{digest}/", headers={**bearer(device), "If-None-Match": f'"{digest}"'})

    assert (response.status_code, response.content) == (304, b"")


def test_a_device_outside_the_cohort_fetches_models_of_the_tasks_that_it_offers(anybody, training):
    run, _ = training
    digest = current_round(run).base_model.digest
    same_task = participant().connect(timezone.now())
    never_connected = participant()

    allowed = anybody.get(f"/api/v1/weights/{digest}/", headers=bearer(same_task))
    refused = anybody.get(f"/api/v1/weights/{digest}/", headers=bearer(never_connected))

    assert (allowed.status_code, len(allowed.getvalue())) == (200, current_round(run).base_model.size)
    assert (refused.status_code, error_of(refused)) == (404, "not_found")


def test_a_device_that_offers_the_task_no_more_still_finishes_its_assignment(anybody, training):
    run, (device, _) = training
    device.device.tasks.all().delete()

    response = anybody.get(f"/api/v1/weights/{current_round(run).base_model.digest}/", headers=bearer(device))

    assert response.getvalue()
    assert response.status_code == 200


@pytest.mark.parametrize("digest", ["0" * 64, "x", "best"])
def test_weights_that_do_not_exist_answer_404(anybody, training, digest):
    _, (device, _) = training

    assert anybody.get(f"/api/v1/weights/{digest}/", headers=bearer(device)).status_code == 404


def test_a_person_fetches_no_weights_by_digest(admin, training):
    run, _ = training

    assert admin.get(f"/api/v1/weights/{current_round(run).base_model.digest}/").status_code == 401


# ── updates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def send(client, device, data, manifest=None, **changes):
    """PUT an update; headers of `changes` replace the honest ones, None takes one away."""
    headers = {**signed(device, device.manifest(data) if manifest is None else manifest), **changes}
    headers = {name: value for name, value in headers.items() if value is not None}
    return client.put(
        f"/api/v1/assignments/{device.assignment().pk}/update/",
        data,
        content_type="application/octet-stream",
        headers=headers,
    )


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


def test_an_update_is_accepted_and_kept_as_it_was_signed(anybody, training, incoming, settings):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    response = send(anybody, device, data, manifest)

    receipt = msgspec.json.decode(response.content, type=UpdateReceipt)
    update = Update.objects.get()
    assert (response.status_code, receipt.state, receipt.assignment_id) == (200, "accepted", device.assignment().pk)
    assert bytes(update.manifest) == manifest
    assert (settings.MEDIA_ROOT / update.file).read_bytes() == data
    assert incoming() == []


def test_sending_again_answers_the_same(anybody, training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    first, again = send(anybody, device, data, manifest), send(anybody, device, data, manifest)

    assert first.content == again.content
    assert Update.objects.count() == 1
    assert incoming() == []


def test_an_update_after_the_round_is_late(anybody, training, incoming):
    run, (device, _) = training
    data = encode(device.train()[0])
    runs.stop_run(run=run, now=timezone.now())

    receipt = msgspec.json.decode(send(anybody, device, data).content, type=UpdateReceipt)

    assert receipt.state == "late"
    assert incoming() == []


def test_more_bytes_than_the_model_has_are_refused_before_they_are_read(anybody, training, incoming):
    _, (device, _) = training
    data = b"x" * (max_size(spec_of_task("linear")) + 1)

    response = send(anybody, device, data)

    assert_rejected(device, response, 413, "too_large", incoming)


def test_a_body_of_unknown_length_is_refused(anybody, training, incoming):
    _, (device, _) = training

    response = send(anybody, device, encode(device.train()[0]), **{"Content-Length": ""})

    assert_rejected(device, response, 411, "length_required", incoming)


def test_a_compressed_body_is_refused(anybody, training, incoming):
    _, (device, _) = training

    response = send(anybody, device, encode(device.train()[0]), **{"Content-Encoding": "gzip"})

    assert_rejected(device, response, 415, "encoded_body", incoming)


@pytest.mark.parametrize("header", ["X-QFLARE-Manifest", "X-QFLARE-Signature"])
@pytest.mark.parametrize("value", [None, "", "no base64!"])
def test_an_update_without_its_manifest_or_signature_is_refused(anybody, training, incoming, header, value):
    _, (device, _) = training

    response = send(anybody, device, encode(device.train()[0]), **{header: value})

    assert_rejected(device, response, 422, "bad_header", incoming)


def test_a_truncated_update_is_refused(anybody, training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])

    response = send(anybody, device, data[:-4], device.manifest(data))

    assert_rejected(device, response, 422, "wrong_size", incoming)


def test_an_update_with_other_bytes_than_were_signed_is_refused(anybody, training, incoming):
    _, (device, _) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)

    response = send(anybody, device, data[:-1] + bytes([data[-1] ^ 1]), manifest)

    assert_rejected(device, response, 422, "wrong_digest", incoming)


def test_an_update_that_another_device_signed_is_refused(anybody, training, incoming):
    _, (device, other) = training
    data = encode(device.train()[0])
    manifest = device.manifest(data)
    signature = b64encode(other.key.sign(manifest, UPDATE_CONTEXT)).decode()

    response = send(anybody, device, data, manifest, **{"X-QFLARE-Signature": signature})

    assert_rejected(device, response, 422, "bad_signature", incoming)


def test_a_wrong_shape_is_refused(anybody, training, incoming):
    _, (device, _) = training
    delta = {name: torch.zeros([2, *tensor.shape]) for name, tensor in device.train()[0].items()}

    response = send(anybody, device, encode(delta))

    assert_rejected(device, response, 422, "wrong_shape", incoming)


def test_a_value_that_is_not_finite_is_refused(anybody, training, incoming):
    _, (device, _) = training
    delta = {name: torch.full_like(tensor, torch.nan) for name, tensor in device.train()[0].items()}

    response = send(anybody, device, encode(delta))

    assert_rejected(device, response, 422, "not_finite", incoming)


def test_another_update_for_the_same_assignment_is_refused_and_the_first_one_stays(anybody, training):
    _, (device, _) = training
    data = encode(device.train()[0])
    send(anybody, device, data)

    response = send(anybody, device, data, device.manifest(data, num_examples=41))

    assert (response.status_code, error_of(response)) == (409, "conflict")
    assert Update.objects.get().digest == hashlib.sha256(data).hexdigest()
    assert device.assignment().state == "accepted"


def test_a_device_sends_nothing_for_another(anybody, training, incoming):
    _, (device, other) = training
    data = encode(device.train()[0])
    headers = signed(other, device.manifest(data))

    response = anybody.put(f"/api/v1/assignments/{device.assignment().pk}/update/", data, headers=headers)

    assert (response.status_code, error_of(response)) == (404, "not_found")
    assert device.assignment().state == "assigned"
    assert incoming() == []


# ── giving up ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def give_up(client, device, reason):
    address = f"/api/v1/assignments/{device.assignment().pk}/failure/"
    return client.post(address, {"reason": reason}, headers=bearer(device))


def test_a_device_gives_up_and_says_why(anybody, training):
    _, (device, _) = training

    answers = [give_up(anybody, device, "training diverged") for _ in range(2)]

    receipts = [msgspec.json.decode(answer.content, type=UpdateReceipt) for answer in answers]
    assert [(receipt.state, receipt.reason) for receipt in receipts] == [("failed", "training diverged")] * 2
    assert device.assignment().state == "failed"


def test_a_device_gives_up_with_a_reason_or_not_at_all(anybody, training):
    _, (device, _) = training

    response = give_up(anybody, device, "")

    assert (response.status_code, error_of(response)) == (422, "invalid")
    assert device.assignment().state == "assigned"


def test_what_has_ended_is_not_given_up(anybody, training):
    _, (device, _) = training
    send(anybody, device, encode(device.train()[0]))

    response = give_up(anybody, device, "no")

    assert (response.status_code, error_of(response)) == (409, "conflict")
    assert Assignment.objects.get(pk=device.assignment().pk).state == "accepted"
