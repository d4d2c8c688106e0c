"""When a device comes back, when it stays away, and that its socket does both for real."""

import base64
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as some

from edge.backoff import LOST, Ending, full_jitter, next_attempt, reconnect_delay
from edge.connection import Socket, SocketLoop, ending
from edge.enroll import enroll, read_token
from edge.http import Doors, Server
from edge.protocol import client
from edge.protocol import server as wire
from edge.protocol.close_codes import CloseCode, is_terminal
from edge.session import Session, Welcomed
from edge.store import Account, Home
from tests.edge.little_server import LittleServer, Notes

draws = some.floats(min_value=0, max_value=1, exclude_max=True)
attempts = some.integers(min_value=0, max_value=10_000)


@given(attempts, draws)
def test_the_wait_is_anything_up_to_a_bound_that_doubles_to_thirty_seconds(attempt, draw):
    bound = min(30.0, 0.5 * 2.0 ** min(attempt, 10))

    assert 0 <= full_jitter(attempt, draw) <= bound
    assert full_jitter(attempt, 0.5) == bound / 2


@given(attempts, draws, some.integers(min_value=1000, max_value=4999))
def test_a_device_stays_away_exactly_for_terminal_codes(attempt, draw, code):
    assert (reconnect_delay(attempt, Ending(code), draw) is None) == is_terminal(code)


@pytest.mark.parametrize("code", [4500, 4501, 4503, 4504, 4505, 1002, 1008, 1009])
def test_who_is_sent_away_does_not_come_back(code):
    assert reconnect_delay(0, Ending(code, retry_after=1.0), 0.5) is None


@pytest.mark.parametrize("code", [1000, LOST, 1011, 4002, 4008, 4009, 4010])
def test_after_a_loss_the_first_wait_is_at_most_half_a_second(code):
    assert reconnect_delay(0, Ending(code), 0.999) < 0.5


@given(attempts, draws)
def test_a_crowded_server_is_left_alone_for_thirty_seconds(attempt, draw):
    assert reconnect_delay(attempt, Ending(CloseCode.TOO_MANY), draw) >= 30
    assert reconnect_delay(attempt, Ending(CloseCode.TOO_MANY, retry_after=45), draw) >= 45


@given(draws, some.sampled_from([1012, 1013, CloseCode.RESTARTING]))
def test_a_restarting_server_is_given_the_time_it_asks_for_whatever_its_code_for_that(draw, code):
    assert 0.7 <= reconnect_delay(0, Ending(code, retry_after=0.7), draw) <= 1.2
    assert reconnect_delay(0, Ending(code), draw) == pytest.approx(0.5 + 9.5 * draw)


def test_failures_count_up_until_a_connection_lasted_ten_seconds():
    assert next_attempt(0, Ending(uptime=0)) == 1
    assert next_attempt(5, Ending(uptime=9.9)) == 6
    assert next_attempt(5, Ending(uptime=10)) == 0


class Heard:
    """Collects what a connection hears."""

    def __init__(self):
        self.all = []

    def __call__(self, heard):
        self.all.append(heard)


def session_for(account, key):
    return Session(account, key, [client.TaskOffer(task="linear", digest="d", num_examples=1)])


@pytest.fixture
def server():
    little = LittleServer()
    yield little
    little.stop()


@pytest.fixture
def connection(server, tmp_path):
    """A connection of an enrolled device that is up, in a thread, with what it heard and told, and how it failed."""
    home = Home(tmp_path)
    with Doors(Server(server.url), None) as doors:
        enroll(home, doors, read_token(server.token()), "one")
    heard, notes, failures = Heard(), Notes(), []
    loop = SocketLoop(Server(server.url), None)
    made = Socket(loop, session_for(home.account(), home.key()), heard, notes)
    made.heard, made.notes, made.failures, made.ended = heard, notes, failures, threading.Event()

    def end(error):
        failures.append(error)
        made.ended.set()

    loop.start([made], end)
    yield made
    loop.stop(30)
    assert loop.loop.is_closed()


def test_a_dropped_connection_comes_back(server, connection):
    server.wait_connected()

    for count, code in enumerate((4008, 4009, 4010), start=2):
        server.wait_connected()
        server.close_sockets(code)
        connection.notes.wait_for("connected", count)

    welcomes = [heard for heard in connection.heard.all if isinstance(heard, Welcomed)]
    assert [welcome.reconnected for welcome in welcomes] == [False, True, True, True]


def test_a_connection_comes_back_to_a_server_that_was_away(server, connection):
    server.wait_connected()

    server.stop()
    connection.notes.wait_for("disconnected")
    server.start()
    server.wait_connected()

    assert len(server.devices[1].hellos) == 2


def test_a_server_that_asks_for_time_gets_it(server, connection):
    server.wait_connected()

    server.close_sockets(4001, wire.Bye(code=4001, reason="restarting", retry_after_ms=300))
    told = connection.notes.wait_for("disconnected")
    server.wait_connected()

    assert 0.3 <= told.facts["retry_seconds"] < 0.8
    assert "restarting" in told.text


def test_a_terminal_code_ends_the_connection_for_good(server, connection):
    server.wait_connected()

    server.close_sockets(4504)
    assert connection.ended.wait(30)

    assert connection.failures[0].code == 4504
    assert connection.notes.of("disconnected") == []  # whoever started it says so, and once
    assert "a newer connection" in connection.failures[0].why


def test_an_impostor_gets_no_proof_and_is_asked_again_later(server, connection):
    server.wait_connected()

    server.forge_challenge = True
    server.close_sockets(4008)
    server.wait_until(lambda: "left after the challenge" in server.requests)
    server.forge_challenge = False
    server.wait_connected()

    assert any("pinned" in note.text for note in connection.notes.of("disconnected"))


def test_heartbeats_are_sent_and_their_answers_keep_the_connection(server, connection):
    server.heartbeat_seconds = 1.0
    server.wait_connected()
    server.close_sockets(4008)

    # Without answers it would have hung up instead of sending the third.
    server.wait_until(lambda: sum(isinstance(heard, client.Heartbeat) for heard in server.devices[1].heard) >= 3)

    assert len(server.devices[1].hellos) == 2


def progress_of(server):
    return [heard.progress for heard in server.devices[1].heard if isinstance(heard, client.Progress)]


def test_of_progress_the_newest_is_always_sent(server, connection):
    for step in range(1, 101):
        connection.send_progress(
            client.Progress(assignment_id=1, state="training", progress=step / 100, local_epoch=1, local_epochs=1)
        )
    server.wait_until(lambda: server.devices and 1.0 in progress_of(server))

    assert progress_of(server) == sorted(progress_of(server))


def test_asking_to_reconnect_makes_a_new_connection(server, connection):
    server.wait_connected()

    connection.reconnect("the bearer token has expired")
    server.wait_until(lambda: len(server.devices[1].hellos) == 2 and server.is_connected())

    assert "the bearer token has expired" in connection.notes.of("disconnected")[0].text


def test_how_it_ended_is_the_farewell_s_word_where_the_close_frame_got_lost(server, tmp_path):
    account = Account(
        server="http://127.0.0.1:1",
        server_public_key=base64.b64encode(b"key").decode(),
        server_fingerprint="f",
        device_id=1,
        name="one",
    )
    session = session_for(account, None)
    session.farewell = wire.Bye(code=4505, reason="revoked", retry_after_ms=10**9)

    how = ending(session, None, "", 3.0)

    assert (how.code, how.reason, how.uptime, how.retry_after) == (4505, "revoked", 3.0, 600.0)
