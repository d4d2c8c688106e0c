"""Who may be told what, and for how long."""

import json
import re

import httpx
import pytest
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.utils import timezone

from fl import devices, events
from fl.models import Event, Stream
from tests.builders import participant, person
from tests.realtime.acts import cookie_of, note, record_now
from tests.realtime.raw import CLOSE, RawClient, Refused
from tests.scenarios.devices import RawDevice
from tests.scenarios.table import scenario

HUGE = [2**63 - 1, 2**63, 2**64, 10**30]


def signed_in(server, path, cookie, query=""):
    client = RawClient(server.port, path + query, origin=server.url, headers=[f"Cookie: {cookie}"])
    assert json.loads(client.text())["event"] == "welcome"
    return client


def until(client, event, **fields):
    while True:
        frame = json.loads(client.text())
        if frame["event"] == event and all(frame.get(name) == value for name, value in fields.items()):
            return frame


def the_end(client):
    """Return the code, and the `bye` before it."""
    last = None
    while True:
        opcode, payload = client.receive()
        if opcode == CLOSE:
            return payload, last
        last = json.loads(payload)


def sign_out(server, user, cookie):
    with httpx.Client(base_url=server.url, headers={"Cookie": f"{cookie}; csrftoken={'x' * 32}"}) as browser:
        answer = browser.post("/logout/", headers={"X-CSRFToken": "x" * 32, "Origin": server.url})
    assert answer.status_code in (200, 302), answer.text


def change_password(server, user, cookie):
    user.set_password("another long password")
    user.save()


def switch_off(server, user, cookie):
    user.is_active = False
    user.save()


def lose_session(server, user, cookie):
    Session.objects.filter(session_key=cookie.partition("=")[2]).delete()


def lose_role(server, user, cookie):
    user.groups.set([Group.objects.get_or_create(name="viewer")[0]])


ENDS = {sign_out: 4002, change_password: 4002, switch_off: 4002, lose_session: 4002, lose_role: 4503}


@scenario(22, "whoever may no longer be there is ended with the reason, and cannot resume")
def test_whoever_may_no_longer_be_there_is_ended_with_the_reason_and_cannot_resume(stand):
    server = stand.start()
    record_now("system", note("seen"))
    epoch = Stream.objects.get(pk="system").epoch
    people = {how: person(how.__name__, "admin") for how in ENDS}
    cookies = {how: cookie_of(user) for how, user in people.items()}
    sockets = {how: signed_in(server, "/ws/admin", cookie) for how, cookie in cookies.items()}
    stays = signed_in(server, "/ws/admin", cookie_of(person("stays", "admin")))
    barred = participant(now=timezone.now())
    device = RawDevice(server.port, barred)

    for how in ENDS:
        how(server, people[how], cookies[how])
    devices.revoke(device=barred.device, reason="lost", now=timezone.now(), by=None)

    for how, code in ENDS.items():
        found, last = the_end(sockets[how])
        assert (how.__name__, found, last["event"]) == (how.__name__, code, "bye")
    assert the_end(device.client)[0] == 4505
    record_now("system", note("secret"))
    assert until(stays, "error_notification")["data"]["title"] == "secret"
    for how in ENDS:
        headers = [f"Cookie: {cookies[how]}"]
        again = RawClient(server.port, f"/ws/admin?since=system:{epoch}:1", origin=server.url, headers=headers)
        code, last = the_end(again)
        assert (how.__name__, code) == (how.__name__, 4503 if how is lose_role else 4500)
        assert "secret" not in json.dumps(last)


@scenario(23, "a position that cannot be gets its reason, and tells nothing of other streams")
def test_a_position_that_cannot_be_gets_its_reason_and_tells_nothing_of_other_streams(stand):
    server = stand.start(QFLARE_RESUME_EVENTS="20", QFLARE_MESSAGES_PER_SECOND="1000")
    record_now("system", *[note(str(n)) for n in range(1, 61)])
    events.open_stream("device:77")
    record_now("device:77", note("another's"))
    system, other = Stream.objects.get(pk="system").epoch, Stream.objects.get(pk="device:77").epoch
    # Pruned so far that even the newest twenty have a hole.
    Event.objects.filter(stream="system", seq__lte=50).delete()
    vera = person("vera", "viewer")
    client = signed_in(server, "/ws/dashboard", cookie_of(vera))
    until(client, "snapshot")
    reasons = {(system, 60): "", (system, 55): "", (system, 45): "too_old", (system, 3): "too_far"}
    reasons |= {("unknown", 55): "epoch", (system, 61): "epoch", (system, -1): "epoch"}
    reasons |= {(system, seq): "epoch" for seq in HUGE[:2]}

    for (epoch, seq), reason in reasons.items():
        client.send(
            json.dumps({"type": "sub", "streams": ["system"], "since": {"system": {"epoch": epoch, "seq": seq}}})
        )
        recent = until(client, "recent_events")["data"]
        assert (seq, recent["reason"], recent["recovered"]) == (seq, reason, not reason)
        if reason:
            until(client, "snapshot")

    answers = []
    for stream, epoch in (("device:77", other), ("device:78", other)):
        client.send(json.dumps({"type": "sub", "streams": [stream], "since": {stream: {"epoch": epoch, "seq": 0}}}))
        answers.append(until(client, "error")["data"])
        assert answers[-1].pop("message") == f"no such stream: {stream}"
    assert answers[0] == answers[1]
    for seq in HUGE:
        answered = signed_in(server, "/ws/dashboard", cookie_of(vera), f"?since=system:{system}:{seq}")
        assert not until(
            answered,
            "recent_events",
        )["data"]["recovered"]
    many = json.dumps({"type": "sub", "streams": [f"run:{n}" for n in range(5_000)]})
    client.send(many)
    assert until(client, "error")["data"]["code"] == "invalid_message"


@scenario(21, "a page from elsewhere gets nowhere and is logged, and at the door of devices no cookie counts")
def test_where_a_page_from_elsewhere_brings_a_cookie_it_gets_nowhere_whatever_hosts_are_allowed(stand):
    server = stand.start(QFLARE_ALLOWED_HOSTS="*")
    cookie = cookie_of(person("adam", "admin"))
    headers = [f"Cookie: {cookie}"]

    for path in ("/ws/dashboard", "/ws/admin", "/ws"):
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
            with pytest.raises(Refused) as refused:
                RawClient(server.port, path, origin=origin, headers=headers)
            assert (path, origin, refused.value.status) == (path, origin, 403)
            assert re.search(rf"refused {path} from \S+: the origin '{re.escape(origin)}'", server.log)
        assert signed_in(server, path, cookie)

    for path in ("/ws/dashboard", "/ws/admin"):
        code, last = the_end(RawClient(server.port, path, headers=headers))
        assert (path, code, last["event"]) == (path, 4500, "bye")
        assert re.search(rf"refused {path} from \S+: its cookie does not count", server.log)
    anybody = json.loads(RawClient(server.port, "/ws", headers=headers).text())
    assert (anybody["event"], anybody["data"].get("user"), anybody["data"].get("roles", [])) == ("welcome", None, [])

    for origin in ("https://evil.example", "null", server.url, None):
        client = RawClient(server.port, "/ws/clients", origin=origin, headers=headers)
        client.send('{"type":"sub","streams":["system"]}')
        code, last = the_end(client)
        assert (origin, code, last["event"]) == (origin, 4500, "bye")
