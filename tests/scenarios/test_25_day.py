"""A day in short: who comes and goes leaves nothing behind, and who only watches costs next to nothing."""

import json
import random
import socket
from datetime import UTC, datetime

from django.contrib.sessions.models import Session

from realtime.models import ServerProcess
from tests.fl.threads import eventually
from tests.realtime.raw import CLOSE, RawClient
from tests.scenarios.crowd import Crowd
from tests.scenarios.memory import MB, Level
from tests.scenarios.stand import Fewest, has_only, more_than
from tests.scenarios.table import SEED, scenario

TURNS, WARM_TURNS = 12, 4
EVENTS_A_TURN = 20
BEATS = 10
PEOPLE = 2
"""One who is idle, and one who is busy."""
HEARTBEATS_AN_HOUR = 60
BYTES_AN_HOUR = 5_000
MANY = {"QFLARE_MAX_CONNECTIONS_PER_USER": "1000", "QFLARE_HEARTBEAT_SECONDS": "10"}


@scenario(25, "a day of comings and goings, with sessions that end, leaves no task, file, group or memory behind")
def test_a_day_of_comings_and_goings_leaves_nothing_behind(stand):
    """A turn stands for two hours: events, a tenth of the connections cut, and every third time a new session."""
    chance = random.Random(SEED)
    server = stand.start(**MANY)
    idle = Crowd(server, 150, cookie=stand.cookie())
    busy = Crowd(server, 50, cookie=stand.cookie(), comes_back={4002})

    for turn in range(1, TURNS + 1):
        server.ask("record", stream="system", count=EVENTS_A_TURN, size=300)
        busy.cut(chance, 0.3)
        idle.cut(chance, 0.05)
        if turn % 3 == 0:
            rotated(busy, stand)
        for crowd in (idle, busy):
            crowd.wait_for("system", turn * EVENTS_A_TURN)
        if turn == WARM_TURNS:
            before, level = settled(server, 200), Level(server)

    left, fewest = {}, Fewest()

    def is_as_before():
        left.clear()
        left.update(more_than(before, fewest.of(settled(server, 200))))
        return not left

    eventually(is_as_before, lambda: f"there is more than before: {left}")
    assert level.growth < 8 * MB
    idle.assert_exact()
    busy.assert_exact()


@scenario(25, "an idle connection costs at most 5 KB an hour, by the server's own counters")
def test_an_idle_connection_costs_at_most_five_kilobytes_an_hour(stand):
    """Sixty heartbeats are an hour, however short they are here; the server's counters are those of its clients.

    The answers come late and all at once: nobody is ended for that who never answered before, and bytes are bytes.
    """
    server = stand.start(QFLARE_HEARTBEAT_SECONDS="0.2", QFLARE_MESSAGES_PER_SECOND="1000")
    sent, received = counted_since(server, datetime.now(UTC))
    clients = [
        RawClient(server.port, "/ws/dashboard", origin=server.url, headers=[f"Cookie: {stand.cookie()}"])
        for _ in range(20)
    ]
    for client in clients:
        until_heartbeat(client)
    before = [client.taken + client.given for client in clients]

    for client in clients:
        for _ in range(BEATS):
            until_heartbeat(client)
    spent = [answer_and_leave(client) - start for client, start in zip(clients, before, strict=True)]

    assert max(spent) / BEATS * HEARTBEATS_AN_HOUR <= BYTES_AN_HOUR
    expected = (sent + sum(client.taken for client in clients), received + sum(client.given for client in clients))
    eventually(lambda: counted_since(server, datetime.now(UTC)) == expected)


def answer_and_leave(client):
    """Answer all heartbeats and close, in one packet; return how many bytes it were up to the close."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    for _ in range(BEATS):
        client.send('{"type":"heartbeat"}')
    spent = client.taken + client.given
    client.send((1000).to_bytes(2, "big"), CLOSE)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    client.close_code()
    return spent


def rotated(crowd, stand):
    """Let the people of a crowd sign in anew, and their old session end; they come back as others would."""
    old = crowd.cookie
    crowd.sign_in_again(stand.cookie())
    Session.objects.filter(session_key=old.partition("=")[2]).delete()


def settled(server, connections):
    """Return what the server has when so many are connected, nothing waits, and those who left are forgotten."""

    def look():
        remains, counts = server.remains(), server.ask("counts")
        waits = (counts["connections"], counts["queued"], counts["behind"]) != (connections, 0, 0)
        # Who had an old session is only gone when it was looked whose sessions still count.
        # Whoever is let in follows `system`; who is on the way in does not yet.
        waits |= remains["objects"].get("Cursor", 0) != connections
        everybody = connections, [connections, 1, PEOPLE], [connections, 0]
        waits |= (remains["connections"], remains["at the door"], remains["people and devices"]) != everybody
        # Those who came together may share one. At the end there is none.
        waits |= remains["objects"].get("Person", 0) > connections
        objects = {kind: count for kind, count in remains["objects"].items() if kind != "Person"}
        # Whose groups they are depends on who has signed in.
        found = {**remains, "objects": objects, "groups": len(remains["groups"])}
        return found if has_only(connections, remains) and not waits else None

    return eventually(look)


def until_heartbeat(client):
    """Read up to the next heartbeat."""
    while json.loads(client.text())["event"] != "heartbeat":
        pass


def counted_since(server, moment):
    """Return what a row of the server's that was written after a moment says: bytes sent and received."""
    row = eventually(lambda: ServerProcess.objects.filter(heard_at__gt=moment).first())
    return row.bytes_sent, row.bytes_received
