"""The messages on the wire: what one side writes the other reads, and what is signed covers every byte."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from edge.protocol import client, handshake, server
from edge.protocol.close_codes import MEANINGS, CloseCode, is_terminal
from edge.protocol.enrollment import MalformedToken, TokenText, parse_token

parts = some.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1)

CHALLENGE = server.Challenge(connection_id="c", server_nonce="n", fingerprint="f", expires_in_s=30, signature="signed")


@given(parts, parts, parts)
def test_a_token_s_text_reads_back_as_it_was(id, secret, fingerprint):
    token = TokenText(id=id, secret=secret, fingerprint=fingerprint)

    assert parse_token(f"  {token}\n") == token


@pytest.mark.parametrize("text", ["", "qfe1", "qfe1.a.b", "qfe1.a.b.c.d", "qfe1.a..c", "qfe2.a.b.c"])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(MalformedToken, match="copy it whole"):
        parse_token(text)


def test_a_token_s_secret_does_not_show_in_logs():
    assert "hidden" not in repr(TokenText(id="a", secret="hidden", fingerprint="f"))


@pytest.mark.parametrize(
    "message",
    [
        client.Hello(protocol="qflare.v1", device_id=7, since={"run:1": server.Position(epoch="e", seq=3)}),
        client.Auth(signature="c2ln"),
        client.Heartbeat(id="9"),
        client.Subscribe(streams=["run:1"]),
        client.Unsubscribe(streams=["run:1"]),
        client.Ack(stream="device:7", seq=12),
        client.Progress(assignment_id=1, state="training", progress=0.5, local_epoch=1, local_epochs=2, loss=0.1),
        client.Command(name="admin.broadcast", args={"text": "hello"}, idem="i"),
    ],
)
def test_a_client_s_message_reads_back_as_it_was(message):
    assert client.decode_message(client.encode_message(message)) == message


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"weather"}',
        '{"protocol":"qflare.v1"}',
        '{"type":"ack","stream":"device:7","seq":"twelve"}',
        '{"type":"heartbeat","extra":1}',
        "[]",
    ],
)
def test_what_is_no_client_s_message_is_refused_with_a_reason(text):
    with pytest.raises(msgspec.ValidationError):
        client.decode_message(text)


def test_every_event_has_one_payload_and_every_payload_one_name():
    assert len(server.PAYLOADS) == len(server.DURABLE) + len(server.CONTROL)
    assert all(payload.event == event for event, payload in server.PAYLOADS.items())


def test_a_durable_frame_carries_its_position_and_reads_back():
    cancel = server.Cancel(assignment_id=1, run_id=2, round=3, reason="stopped")
    moment = datetime(2030, 1, 1, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))

    frame = server.decode_frame(server.encode_frame("cancel", cancel, timestamp=moment, stream="device:7", seq=4))

    assert (frame.stream, frame.seq, frame.timestamp) == ("device:7", 4, "2030-01-01T12:00:00.123Z")
    assert server.decode_payload(frame.event, frame.data) == cancel


def test_a_frame_says_only_what_it_has():
    text = server.encode_frame("heartbeat", server.Heartbeat(s={"run:1": 3}))

    assert text == '{"event":"heartbeat","data":{"s":{"run:1":3}}}'


def test_a_payload_that_is_already_encoded_goes_out_as_it_is():
    cancel = server.Cancel(assignment_id=1, run_id=2, round=3, reason="stopped")

    assert server.encode_frame("cancel", server.encode_payload(cancel)) == server.encode_frame("cancel", cancel)


def test_numbers_that_are_not_finite_become_null():
    progress = server.TrainingProgress(run_id=1, round=1, phase="training", loss=float("nan"))

    assert server.decode_payload("training_progress", server.encode_payload(progress)).loss is None


def test_fields_of_a_newer_server_are_passed_over():
    payload = server.decode_payload("bye", b'{"code":4001,"reason":"restarting","mood":"sad"}')

    assert payload == server.Bye(code=4001, reason="restarting")


@given(some.text(), some.text())
def test_the_server_signs_for_one_hello_only(first, second):
    same = handshake.challenge_message(first, CHALLENGE) == handshake.challenge_message(second, CHALLENGE)

    assert same == (first == second)


def test_a_challenge_is_signed_without_its_signature_and_with_all_else():
    signed = handshake.challenge_message("hello", CHALLENGE)

    assert handshake.challenge_message("hello", msgspec.structs.replace(CHALLENGE, signature="other")) == signed
    for field, value in {"connection_id": "x", "server_nonce": "x", "fingerprint": "x", "expires_in_s": 31}.items():
        changed = msgspec.structs.replace(CHALLENGE, **{field: value})
        assert handshake.challenge_message("hello", changed) != signed


@given(some.text(min_size=1), some.text(min_size=1))
def test_a_transcript_tells_its_two_frames_apart(hello, challenge):
    moved = handshake.transcript(hello + challenge[0], challenge[1:])

    assert len(handshake.transcript(hello, challenge)) == 32
    assert moved != handshake.transcript(hello, challenge)
    assert (handshake.transcript(challenge, hello) == handshake.transcript(hello, challenge)) == (hello == challenge)


def test_every_close_code_can_be_sent_and_has_a_meaning():
    assert set(MEANINGS) == set(CloseCode)
    assert all(code == 1000 or 4000 <= code <= 4999 for code in CloseCode)


def test_forty_hundreds_come_back_and_forty_five_hundreds_stay_away():
    for code in CloseCode:
        assert is_terminal(code) == (code >= 4500)
    assert not any(is_terminal(code) for code in (1001, 1006, 1011, 1012, 1013))
    assert all(is_terminal(code) for code in (1002, 1003, 1007, 1008, 1009, 1010))


def test_timestamps_are_utc_with_milliseconds():
    assert server.format_timestamp(datetime(2030, 1, 1, tzinfo=UTC)) == "2030-01-01T00:00:00.000Z"


def test_an_idle_heartbeat_is_as_short_as_it_can_be_both_ways():
    assert server.encode_frame("heartbeat", server.Heartbeat()) == '{"event":"heartbeat","data":{"s":{}}}'
    assert client.encode_message(client.Heartbeat()) == '{"type":"heartbeat"}'
