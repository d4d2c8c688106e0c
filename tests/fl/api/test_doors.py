"""What devices need over HTTP: a way in, a word that it gives up."""

from base64 import b64decode, b64encode
from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone

from edge.identity import ALGORITHM, ENROLL_CONTEXT, RECEIPT_CONTEXT, UPDATE_CONTEXT, SigningKey, fingerprint_of, verify
from edge.protocol import PROTOCOL
from edge.protocol.http import SIGNATURE_HEADER, EnrollmentReceipt, EnrollmentRequest, ServerIdentity, UpdateReceipt
from fl import devices
from fl.models import Assignment, Device, EnrollmentToken
from tests.builders import participant
from tests.fl.api.conftest import bearer, error_of

pytestmark = pytest.mark.django_db


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
    device.send()

    response = give_up(anybody, device, "no")

    assert (response.status_code, error_of(response)) == (409, "conflict")
    assert Assignment.objects.get(pk=device.assignment().pk).state == "accepted"
