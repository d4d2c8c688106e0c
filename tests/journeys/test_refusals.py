"""What is not in order is refused with its reason, costs its sender the round, and changes nothing for the others.

The refused are sent by a device made by hand, through the real doors; two real devices are at work beside it.
"""

import json
import socket

import httpx
import pytest
import torch

from edge.enroll import enroll, read_token
from edge.errors import Refused
from edge.http import Doors, Server
from edge.identity import AUTH_CONTEXT, UPDATE_CONTEXT, SigningKey
from edge.store import Home
from edge.tasks import task_spec
from edge.wire import decode, encode, max_size
from tests.journeys.handmade import Handmade
from tests.journeys.house import name_of
from tests.journeys.tasks import Patient
from tests.journeys.waiting import GIVE_UP_SECONDS, wait_for

SPEC = task_spec(Patient())


@pytest.fixture
def handmade(shared):
    """Device 3, made by hand, connected."""
    with Handmade(shared, 3) as device:
        yield device.connect()


# ── updates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def tampered_signature(device, assignment, honest):
    signature = bytearray(device.key.sign(device.manifest(assignment, honest), UPDATE_CONTEXT))
    signature[100] ^= 1
    return device.send(assignment, honest, signature=bytes(signature))


def tampered_manifest(device, assignment, honest):
    manifest = device.manifest(assignment, honest)
    signature = device.key.sign(manifest, UPDATE_CONTEXT)
    louder = manifest.replace(b'"num_examples":512', b'"num_examples":999')
    assert louder != manifest
    return device.send(assignment, honest, manifest=louder, signature=signature)


def another_s_key(device, assignment, honest):
    signature = SigningKey.generate().sign(device.manifest(assignment, honest), UPDATE_CONTEXT)
    return device.send(assignment, honest, signature=signature)


def another_purpose(device, assignment, honest):
    signature = device.key.sign(device.manifest(assignment, honest), AUTH_CONTEXT)
    return device.send(assignment, honest, signature=signature)


def another_round(device, assignment, honest):
    return device.send(assignment, honest, manifest=device.manifest(assignment, honest, round=assignment.round + 1))


def wrong_shape(device, assignment, honest):
    delta = decode(honest, SPEC)
    return device.send(assignment, encode(delta | {"weight": delta["weight"].reshape(4, 1)}))


def not_a_number(device, assignment, honest):
    delta = decode(honest, SPEC)
    delta["weight"][0, 2] = torch.nan
    return device.send(assignment, encode(delta))


def oversize(device, assignment, honest):
    return device.send(assignment, honest + bytes(max_size(SPEC)))


def oversize_in_pieces(device, assignment, honest):
    data = honest + bytes(max_size(SPEC))
    # A body that comes as an iterator is sent in chunks, and nobody says how long it is.
    return device.send(assignment, data, content=iter([data]))


def truncated(device, assignment, honest):
    return device.send(assignment, honest[:-4])


def truncated_on_the_way(device, assignment, honest):
    return device.send(assignment, honest, content=honest[:-4])


def altered_on_the_way(device, assignment, honest):
    return device.send(assignment, honest, content=honest[:-4] + bytes(4))


REFUSED = [
    (tampered_signature, 422, "bad_signature"),
    (tampered_manifest, 422, "bad_signature"),
    (another_s_key, 422, "bad_signature"),
    (another_purpose, 422, "bad_signature"),
    (another_round, 422, "wrong_manifest"),
    (wrong_shape, 422, "wrong_shape"),
    (not_a_number, 422, "not_finite"),
    (oversize, 413, "too_large"),
    (oversize_in_pieces, 411, "length_required"),
    (truncated, 422, "truncated"),
    (truncated_on_the_way, 422, "wrong_size"),
    (altered_on_the_way, 422, "wrong_digest"),
]


@pytest.mark.parametrize(("send", "status", "code"), REFUSED, ids=[send.__name__ for send, _, _ in REFUSED])
def test_an_update_that_breaks_a_rule_is_refused_with_its_reason_and_the_run_goes_on(
    shared, handmade, send, status, code
):
    with shared.held():
        run = shared.start_run(cohort_size=3, quorum=2, rounds=2, keep_updates=True, deadline_seconds=600.0)
        assignment = handmade.next_assignment()
        honest = handmade.train(assignment)
        (initial,) = shared.models(run)
        files = stored_files(shared)

        answer = send(handmade, assignment, honest)

        # The answer says why, the rows keep it, and nothing else has changed: no model, no file.
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        reason = answer.json()["error"]["message"]
        (row,) = shared.rows("SELECT * FROM fl_assignment WHERE id = ?", assignment.assignment_id)
        assert (row["state"], row["reason"]) == ("rejected", reason)
        (update,) = shared.updates(run)
        assert update["assignment_id"] == assignment.assignment_id
        assert (update["state"], update["code"], update["reason"], update["file"]) == ("rejected", code, reason, "")
        assert shared.models(run) == [initial]
        assert stored_files(shared) == files
        told = [
            json.loads(data) for data in shared.values("SELECT data FROM fl_event WHERE event = 'error_notification'")
        ]
        assert [(one["code"], one["detail"]) for one in told if one["run_id"] == run] == [(code, reason)]

    # The others make the round's model, and it is made of theirs alone.
    second = handmade.next_assignment()
    assert second.round == 2
    states = {row["name"]: row["state"] for row in shared.assignments(run, 1)}
    assert states == {name_of(1): "accepted", name_of(2): "accepted", name_of(3): "rejected"}
    assert_is_mean_of_accepted(shared, run, handmade.base_of(assignment), handmade.base_of(second))

    # The sender is in the next round again; what it sends in order is taken.
    receipt = handmade.send(second, handmade.train(second))
    assert (receipt.status_code, receipt.json()["state"]) == (200, "accepted")
    shared.wait_for_run(run)
    assert [row["state"] for row in shared.rounds(run)] == ["completed", "completed"]
    assert {row["state"] for row in shared.assignments(run, 2)} == {"accepted"}


def stored_files(house):
    return {path for path in (house.data / "files").rglob("*") if path.is_file()}


def assert_is_mean_of_accepted(house, run, base, result):
    """FedAvg by hand, in float64: x + Σ n·Δ / Σ n over the two updates that were accepted in round 1."""
    accepted = [row for row in house.updates(run) if (row["number"], row["state"]) == (1, "accepted")]
    deltas = [decode((house.data / "files" / row["file"]).read_bytes(), SPEC) for row in accepted]
    total = sum(row["num_examples"] for row in accepted)
    assert len(accepted) == 2
    for name, tensor in result.items():
        mean = sum(row["num_examples"] * delta[name].double() for row, delta in zip(accepted, deltas, strict=True))
        torch.testing.assert_close(tensor.double(), base[name].double() + mean / total, rtol=1e-6, atol=1e-6)


def test_a_refused_update_is_refused_again_and_no_better_one_takes_its_place(shared, handmade):
    with shared.held():
        run = shared.start_run(cohort_size=3, quorum=2, rounds=1)
        assignment = handmade.next_assignment()
        honest = handmade.train(assignment)
        bad = handmade.manifest(assignment, honest[:-4])

        first = handmade.send(assignment, honest[:-4], manifest=bad)
        again = handmade.send(assignment, honest[:-4], manifest=bad)
        better = handmade.send(assignment, honest)

        assert first.json()["error"]["code"] == again.json()["error"]["code"] == "truncated"
        assert (better.status_code, better.json()["error"]["code"]) == (409, "conflict")
    shared.wait_for_run(run)
    assert [row["state"] for row in shared.updates(run)].count("accepted") == 2


def test_an_upload_that_breaks_off_costs_nothing_and_is_sent_again(shared, handmade):
    with shared.held():
        run = shared.start_run(cohort_size=3, rounds=1)
        assignment = handmade.next_assignment()
        honest = handmade.train(assignment)
        manifest = handmade.manifest(assignment, honest)

        # The connection ends in the middle of the body.
        headers = handmade.headers(manifest) | {"Host": f"127.0.0.1:{shared.port}", "Content-Length": str(len(honest))}
        head = f"PUT {assignment.update_url} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items())
        with socket.create_connection(("127.0.0.1", shared.port)) as connection:
            connection.sendall(head.encode() + b"\r\n" + honest[: len(honest) // 2])

        whole = handmade.send(assignment, honest, manifest=manifest)
        assert (whole.status_code, whole.json()["state"]) == (200, "accepted")
        # An answer that was lost is asked for again, and is the same.
        again = handmade.send(assignment, honest, manifest=manifest)
        assert again.json() == whole.json()
    shared.wait_for_run(run)
    assert [row["state"] for row in shared.updates(run)] == ["accepted"] * 3


def test_an_assignment_of_another_device_is_not_found(shared, handmade):
    with shared.held():
        run = shared.start_run(cohort_size=3, quorum=2, rounds=1)
        assignment = handmade.next_assignment()
        (other,) = (row for row in shared.assignments(run) if row["name"] == name_of(1))
        honest = handmade.train(assignment)

        theirs = httpx.put(
            f"{shared.address}/api/v1/assignments/{other['id']}/update/",
            headers=handmade.headers(handmade.manifest(assignment, honest)),
            content=honest,
            trust_env=False,
        )
        assert (theirs.status_code, theirs.json()["error"]["code"]) == (404, "not_found")
        assert shared.updates(run) == []
        assert handmade.send(assignment, honest).is_success
    shared.wait_for_run(run)


# ── the handshake ─────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_sent_away(device):
    """Whatever was wrong, the answer is the same."""
    heard, code = device.read_to_the_end()
    errors = [data for event, data in heard if event == "error"]
    assert code == 4500
    assert [error["code"] for error in errors] == ["not_authenticated"]
    assert not any(event in ("welcome", "snapshot") for event, _ in heard)
    return errors[0]["message"]


@pytest.fixture
def stranger(shared):
    """Device 4, made by hand, not connected."""
    with Handmade(shared, 4) as device:
        yield device.open()


def test_a_wrong_signature_and_an_unknown_device_are_sent_away_alike(shared, stranger):
    hello = stranger.hello()
    challenge = stranger.greet(hello)
    stranger.say(stranger.answer(hello, challenge, key=SigningKey.generate()))
    wrong_key = assert_sent_away(stranger)

    hello = stranger.open().hello()
    challenge = stranger.greet(hello)
    stranger.say(stranger.answer(hello, challenge, context=UPDATE_CONTEXT))
    wrong_context = assert_sent_away(stranger)

    hello = stranger.open().hello(device_id=999_999)
    challenge = stranger.greet(hello)
    stranger.say(stranger.answer(hello, challenge))
    unknown = assert_sent_away(stranger)

    assert wrong_key == wrong_context == unknown
    assert shared.values("SELECT count(*) FROM fl_presencelease WHERE device_id = ?", stranger.account.device_id) == [0]


def test_an_answer_that_was_overheard_lets_nobody_in(shared, stranger):
    hello, _, answer = stranger.connect().said

    # On the same connection the handshake is over.
    stranger.say(answer)
    assert stranger.read_until("error")["code"] == "invalid_message"

    # On another the server's nonce is another, though all else is said again word for word.
    stranger.open()
    stranger.greet(hello)
    stranger.say(answer)
    assert_sent_away(stranger)


def test_nothing_is_said_to_who_does_not_begin_with_the_handshake(shared, stranger):
    stranger.say('{"type":"heartbeat"}')
    assert_sent_away(stranger)

    stranger.open().say('{"type":"auth","signature":"AAAA"}')
    assert_sent_away(stranger)


def test_the_newest_connection_of_a_device_is_the_one(shared, handmade):
    with Handmade(shared, 3) as newer:
        newer.connect()
        _, code = handmade.read_to_the_end()
        assert code == 4504

        with shared.held():
            run = shared.start_run(cohort_size=3, quorum=3, rounds=1)
            assignment = newer.next_assignment()
            assert newer.send(assignment, newer.train(assignment)).is_success
        shared.wait_for_run(run)


# ── enrolment ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_enrolment_token_lets_one_device_in_once(shared, tmp_path):
    issued = shared.post("/api/v1/enrollment-tokens/", {"label": "for one", "auto_approve": True})
    token = read_token(issued["token"])
    devices = "SELECT id, name FROM fl_device ORDER BY id"
    with Doors(Server(shared.address), None) as doors:
        first = enroll(Home(tmp_path / "first"), doors, token, "newcomer")
        assert first.state == "active"
        enrolled = shared.rows(devices)

        # The same device may ask again, as one does whose answer was lost; another may not.
        assert enroll(Home(tmp_path / "first"), doors, token, "newcomer") == first
        with pytest.raises(Refused) as refusal:
            enroll(Home(tmp_path / "second"), doors, token, "another")

        # Used, unknown and wrong are told alike.
        assert (refusal.value.status, refusal.value.code) == (403, "token_refused")
        with pytest.raises(Refused) as unknown:
            enroll(Home(tmp_path / "third"), doors, read_token(issued["token"].replace("qfe1.", "qfe1.0")), "another")
        assert (unknown.value.code, str(unknown.value)) == (refusal.value.code, str(refusal.value))
    assert shared.rows(devices) == enrolled
    assert not (tmp_path / "second" / "device.json").exists()


def test_a_revoked_device_loses_its_socket_and_its_bearer_token_at_once(house):
    house.serve()
    with Handmade(house, 1) as device:
        device.connect()
        path = f"/api/v1/devices/{device.account.device_id}"
        house.post(f"{path}/revoke/", {"reason": "it was stolen"})

        heard, code = device.read_to_the_end()
        assert code == 4505
        assert heard[-1] == ("bye", {"code": 4505, "reason": "it was stolen", "retry_after_ms": None})
        headers = {"Authorization": f"Bearer {device.token}"}
        answer = httpx.get(f"{house.address}/api/v1/weights/{'0' * 64}/", headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "device_barred")

        # Who proves the key hears why; it is the same code again, and never a welcome.
        hello = device.open().hello()
        device.say(device.answer(hello, device.greet(hello)))
        heard, code = device.read_to_the_end()
        assert (code, [event for event, _ in heard if event == "welcome"]) == (4505, [])
    wait_for(
        "the device is offline",
        lambda: house.get(f"{path}/").json()["presence"] == "offline",
        seconds=GIVE_UP_SECONDS,
        needs=[house.server],
    )
