"""A device's side of the protocol, frame by frame: no socket, but real keys and the very frames of the wire."""

import base64
from datetime import UTC, datetime

import msgspec
import pytest

from edge.identity import AUTH_CONTEXT, CHALLENGE_CONTEXT, BadSignature, SigningKey, verify
from edge.positions import MOST_POSITIONS
from edge.protocol import MAX_CLIENT_MESSAGE_BYTES, PROTOCOL, client, handshake, server
from edge.session import (
    Assigned,
    Cancelled,
    Greeting,
    HangUp,
    ModelPublished,
    Noticed,
    Reconciled,
    Send,
    Session,
    TokenRenewed,
    Welcomed,
)
from edge.store import Account

OWN = "device:7"
OFFER = client.TaskOffer(task="linear", digest="d" * 64, num_examples=40, supports=["proximal"])


class Desk:
    """A device's session and the server's key, facing each other."""

    def __init__(self):
        self.server_key = SigningKey.generate()
        self.device_key = SigningKey.generate()
        account = Account(
            server="http://127.0.0.1:1",
            server_public_key=base64.b64encode(self.server_key.public_key).decode(),
            server_fingerprint=self.server_key.fingerprint,
            device_id=7,
            name="ward-7",
        )
        self.session = Session(account, self.device_key, [OFFER])

    def hello(self):
        greeting, sent = self.session.open()
        assert greeting == Greeting()
        return sent.text

    def challenge(self, hello, key=None):
        challenge = server.Challenge(
            connection_id="c", server_nonce="n", fingerprint="f", expires_in_s=30, signature=""
        )
        message = handshake.challenge_message(hello, challenge)
        signature = (key or self.server_key).sign(message, CHALLENGE_CONTEXT)
        signed = msgspec.structs.replace(challenge, signature=base64.b64encode(signature).decode())
        return server.encode_frame("challenge", signed)

    def welcome(self, *, epoch="e", seq=0, number=1):
        access = server.AccessToken(token=f"t{number}", expires_at=datetime.now(UTC))
        payload = server.Welcome(
            protocol=PROTOCOL,
            connection_id="c",
            instance="i",
            time=datetime.now(UTC),
            heartbeat_seconds=60,
            limits=server.Limits(message_bytes=65536, messages_per_second=20, burst=50),
            streams={OWN: server.Position(epoch=epoch, seq=seq)},
            device_id=7,
            token=access,
        )
        return self.session.receive(server.encode_frame("welcome", payload))

    def connect(self, **welcome):
        self.session.receive(self.challenge(self.hello()))
        return self.welcome(**welcome)

    def stand(self, streams, **fields):
        """Connect again, and stand at 1 in these streams."""
        self.connect()
        self.hear(server.Snapshot(streams={name: server.Position(epoch="e", seq=1) for name in streams}, **fields))

    def hear(self, payload, **envelope):
        return self.session.receive(server.encode_frame(payload.event, payload, **envelope))

    def snapshot(self, seq=0, **fields):
        streams = {OWN: server.Position(epoch="e", seq=seq)}
        return self.hear(server.Snapshot(streams=streams, **fields))


@pytest.fixture
def desk():
    return Desk()


def assignment(number=1):
    return server.Assignment(
        assignment_id=number,
        run_id=1,
        run_name="first",
        round=1,
        task="linear",
        task_digest="d" * 64,
        base_version=0,
        base_digest="b" * 64,
        weights_url="/w",
        update_url="/u",
        training=server.TrainingPlan(local_epochs=1, batch_size=8, learning_rate=0.1, seed=1),
        deadline_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


def model(version=1, phase="completed"):
    return server.ModelAggregation(
        run_id=1, task="linear", round=version, phase=phase, strategy="fedavg", version=version, digest="m" * 64
    )


def acks(actions):
    sent = [client.decode_message(action.text) for action in actions if isinstance(action, Send)]
    return [message.seq for message in sent if isinstance(message, client.Ack)]


def test_a_device_says_who_it_is_and_what_it_offers(desk):
    hello = client.decode_message(desk.hello())

    assert (hello.protocol, hello.device_id, hello.tasks, hello.since) == (PROTOCOL, 7, [OFFER], {})
    assert len(base64.b64decode(hello.client_nonce)) == 32


def test_each_connection_has_a_nonce_of_its_own(desk):
    assert desk.hello() != desk.hello()


def test_the_device_s_proof_covers_both_frames_as_they_crossed_the_wire(desk):
    hello = desk.hello()
    challenge = desk.challenge(hello)

    (sent,) = desk.session.receive(challenge)

    proof = base64.b64decode(client.decode_message(sent.text).signature)
    verify(desk.device_key.public_key, proof, handshake.transcript(hello, challenge), AUTH_CONTEXT)
    with pytest.raises(BadSignature):
        verify(desk.device_key.public_key, proof, handshake.transcript(hello, challenge + " "), AUTH_CONTEXT)


@pytest.mark.parametrize("forgery", ["another key", "another hello", "no base64"])
def test_a_server_that_does_not_hold_the_pinned_key_gets_no_proof(desk, forgery):
    hello = desk.hello()
    challenge = {
        "another key": lambda: desk.challenge(hello, SigningKey.generate()),
        "another hello": lambda: desk.challenge(hello + " "),
        "no base64": lambda: desk.challenge(hello).replace('"signature":"', '"signature":"*'),
    }[forgery]()

    actions = desk.session.receive(challenge)

    assert [type(action) for action in actions] == [HangUp]
    assert "pinned" in actions[0].reason


def test_a_welcome_without_a_challenge_is_not_believed(desk):
    desk.hello()

    actions = desk.welcome()

    assert [type(action) for action in actions] == [HangUp]
    assert not desk.session.welcomed


def test_nothing_is_heard_before_the_welcome(desk):
    desk.hello()

    assert desk.hear(assignment(), stream=OWN, seq=1) == []


def test_a_proof_of_an_old_connection_is_worth_nothing_in_the_next(desk):
    desk.connect()
    desk.hello()

    assert [type(action) for action in desk.welcome()] == [HangUp]


def test_the_welcome_brings_the_token(desk):
    assert desk.connect() == [Welcomed("t1", 60, False)]
    assert desk.connect(number=2) == [Welcomed("t2", 60, True)]


def test_a_heartbeat_may_bring_a_newer_token(desk):
    desk.connect()

    renewed = desk.hear(server.Heartbeat(token=server.AccessToken(token="t2", expires_at=datetime.now(UTC))))

    assert renewed == [TokenRenewed("t2")]
    assert desk.hear(server.Heartbeat()) == []


def test_two_heartbeats_without_an_answer_end_the_connection(desk):
    desk.connect()

    first, second, third = desk.session.heartbeat(), desk.session.heartbeat(), desk.session.heartbeat()

    assert [type(client.decode_message(sent.text)) for sent in first + second] == [client.Heartbeat] * 2
    assert [type(action) for action in third] == [HangUp]


def test_an_answered_heartbeat_starts_the_count_anew(desk):
    desk.connect()
    desk.session.heartbeat()
    desk.hear(server.Heartbeat())

    assert [type(action) for action in desk.session.heartbeat() + desk.session.heartbeat()] == [Send, Send]


def test_the_snapshot_is_the_truth_about_the_assignment(desk):
    desk.connect(seq=4)

    actions = desk.snapshot(seq=4, assignment=assignment(3), models=[model(2)])

    assert actions[:2] == [ModelPublished(model(2)), Reconciled(assignment(3))]
    assert acks(actions) == [4]


def test_a_snapshot_in_parts_counts_once_it_is_whole(desk):
    desk.connect()

    first = desk.snapshot(assignment=assignment(3), more=True)
    last = desk.snapshot()

    assert first == []
    assert last[0] == Reconciled(assignment(3))


def test_a_snapshot_without_an_assignment_says_there_is_none(desk):
    desk.connect()

    assert desk.snapshot()[0] == Reconciled(None)


def test_events_of_the_device_s_own_stream_are_acknowledged(desk):
    desk.connect()
    desk.snapshot()

    actions = desk.hear(assignment(), stream=OWN, seq=1)
    cancelled = desk.hear(server.Cancel(assignment_id=1, run_id=1, round=1, reason="stopped"), stream=OWN, seq=2)

    assert actions[0] == Assigned(assignment()) and acks(actions) == [1]
    assert cancelled[0] == Cancelled(1, "stopped") and acks(cancelled) == [2]


def test_an_event_that_comes_twice_counts_once(desk):
    desk.connect()
    desk.snapshot(seq=1)

    assert desk.hear(assignment(), stream=OWN, seq=1) == []


def test_a_hole_in_the_device_s_own_stream_ends_the_connection(desk):
    desk.connect()
    desk.snapshot(seq=1)

    actions = desk.hear(assignment(), stream=OWN, seq=3)

    assert [type(action) for action in actions] == [HangUp]


def test_a_last_event_that_never_came_is_noticed_one_heartbeat_later(desk):
    desk.connect()
    desk.snapshot(seq=1)

    first = desk.hear(server.Heartbeat(s={OWN: 2}))
    second = desk.hear(server.Heartbeat())

    assert first == []
    assert [type(action) for action in second] == [HangUp]


def test_an_event_that_its_head_overtook_is_no_loss(desk):
    desk.connect()
    desk.snapshot(seq=1)

    desk.hear(server.Heartbeat(s={OWN: 2}))
    desk.hear(assignment(), stream=OWN, seq=2)

    assert desk.hear(server.Heartbeat()) == []


def test_a_hole_in_a_run_s_stream_is_no_loss_since_the_newest_model_counts(desk):
    desk.connect()
    desk.hear(model(1), stream="run:1", seq=5)

    assert desk.hear(model(2), stream="run:1", seq=9) == [ModelPublished(model(2))]
    assert desk.hear(model(1), stream="run:1", seq=8) == []


def test_only_a_completed_aggregation_is_a_new_model(desk):
    desk.connect()

    assert desk.hear(model(1, "started"), stream="run:1", seq=1) == []


def test_the_next_hello_says_where_each_stream_stands(desk):
    desk.connect()
    desk.snapshot(seq=3)
    desk.hear(assignment(), stream=OWN, seq=4)

    hello = client.decode_message(desk.hello())

    assert hello.since == {OWN: server.Position(epoch="e", seq=4)}


def run_status(number, state):
    return server.FlStatusUpdate(
        run_id=number, run_name="r", task="linear", strategy="fedavg", state=state, rounds=1, cohort_size=1, quorum=1
    )


def test_runs_that_have_ended_are_forgotten_before_the_hello_is_too_long_and_an_open_one_never(desk):
    runs = range(1, 1001)
    desk.stand([OWN, *(f"run:{number}" for number in runs)])
    for number in runs[1:]:
        desk.hear(run_status(number, "completed"), stream=f"run:{number}", seq=2)
    desk.hear(broadcast("at six"), stream="audience:clients", seq=1, epoch="e")

    desk.stand([OWN, "audience:clients", "run:1"])
    hello = desk.hello()
    since = client.decode_message(hello).since

    assert len(hello) < MAX_CLIENT_MESSAGE_BYTES
    assert {OWN, "audience:clients", "run:1", "run:1000"} <= set(since)
    assert len(since) <= MOST_POSITIONS


def test_of_too_many_open_runs_the_snapshot_tells_and_nothing_is_told_twice(desk):
    runs = [f"run:{number}" for number in range(1, 201)]
    desk.stand([*runs, "audience:clients", OWN], models=[model(1)])

    since = client.decode_message(desk.hello()).since

    assert len(since) == MOST_POSITIONS and {OWN, "audience:clients", "run:1"} <= set(since)
    (forgotten, *_) = set(runs) - set(since)
    desk.connect()
    fresh = recent([model(1)], stream=forgotten, recovered=False)
    assert desk.hear(fresh) == []
    snapshot = desk.hear(server.Snapshot(streams={forgotten: server.Position(epoch="e", seq=1)}, models=[model(2)]))
    assert snapshot[0] == ModelPublished(model(2))
    assert desk.hear(model(2), stream=forgotten, seq=1) == []
    assert desk.hear(model(3), stream=forgotten, seq=2) == [ModelPublished(model(3))]


def test_another_epoch_makes_the_old_position_void(desk):
    desk.connect()
    desk.snapshot(seq=3)

    desk.connect(epoch="later")

    assert client.decode_message(desk.hello()).since == {}


def test_a_server_restored_from_an_older_copy_is_followed_from_where_it_stands(desk):
    desk.connect()
    desk.snapshot(seq=9)

    desk.connect(seq=3)
    assert acks(desk.hear(recent([], recovered=False, since=3, to=3))) == [3]
    assert acks(desk.snapshot(seq=3)) == [3]

    assert desk.hear(assignment(4), stream=OWN, seq=4)[0] == Assigned(assignment(4))


def recent(events, *, stream=OWN, recovered=True, since=0, to=None):
    logged = [
        server.LoggedEvent(
            seq=since + place, event=event.event, data=msgspec.Raw(server.encode_payload(event)), timestamp="x"
        )
        for place, event in enumerate(events, start=1)
    ]
    return server.RecentEvents(
        stream=stream, epoch="e", recovered=recovered, events=logged, since=since, to=to or since + len(events)
    )


def broadcast(text):
    return server.Broadcast(message=text, sender="olga", audiences=["clients"], level="warning")


def test_what_was_missed_is_told_but_old_assignments_are_left_to_the_snapshot(desk):
    desk.connect()

    actions = desk.hear(recent([assignment(), broadcast("at six")]))

    assert actions[0] == Noticed("olga: at six", "warning")
    assert acks(actions) == [2]


def test_what_was_missed_after_the_snapshot_counts(desk):
    desk.connect()
    desk.snapshot(seq=1)

    actions = desk.hear(recent([assignment(1), assignment(2)]))

    assert actions[0] == Assigned(assignment(2))
    assert acks(actions) == [2]


def test_the_newest_events_of_a_stranger_s_log_are_not_news(desk):
    desk.connect()

    actions = desk.hear(recent([broadcast("last year")], recovered=False))

    assert acks(actions) == [1] and len(actions) == 1


def test_unknown_events_and_fields_are_passed_over(desk):
    desk.connect()

    assert desk.session.receive('{"event":"weather","data":{"rain":true}}') == []
    assert desk.session.receive('{"event":"heartbeat","data":{"s":{},"rain":true},"colour":"blue"}') == []


@pytest.mark.parametrize("frame", ["", "[]", "{", '{"event":"cancel","data":{"assignment_id":"one"}}', b"\xff\xfe"])
def test_a_frame_that_cannot_be_read_is_said_and_survived(desk, frame):
    desk.connect()

    (noticed,) = desk.session.receive(frame)

    assert noticed.level == "error"
    assert desk.hear(server.Heartbeat()) == []


def test_a_logged_event_that_cannot_be_read_is_said_and_those_beside_it_count(desk):
    desk.connect()
    missed = recent([broadcast("at five"), broadcast("at six"), broadcast("at seven")])
    foreign = msgspec.Raw(b'{"message":"at six","level":"fatal","sender":"olga","audiences":[]}')
    missed.events[1] = msgspec.structs.replace(missed.events[1], data=foreign)

    first, noticed, last, sent = desk.hear(missed)

    assert (first, last) == (Noticed("olga: at five", "warning"), Noticed("olga: at seven", "warning"))
    assert noticed.level == "error" and "fatal" in noticed.text
    assert acks([sent]) == [3]


def test_a_refused_message_is_told(desk):
    desk.connect()

    (noticed,) = desk.hear(server.Error(code="rate_limited", message="too many messages"))

    assert "too many messages (rate_limited)" in noticed.text


def test_the_farewell_is_kept_for_who_asks_how_it_ended(desk):
    desk.connect()
    desk.hear(server.Bye(code=4001, reason="restarting", retry_after_ms=700))

    assert desk.session.farewell.retry_after_ms == 700
    desk.hello()
    assert desk.session.farewell is None
