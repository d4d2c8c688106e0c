"""Dashboards, admins and anybody: who gets in, what they see, what they may say, and when it ends."""

import asyncio
import json
from ipaddress import ip_network

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from edge.protocol.server import Position
from fl import runs, trash
from fl.models import AuditEntry, Event, IdempotentRequest, Run, Stream
from realtime.authentication import origin_is_allowed
from realtime.limits import REPLAYS_AT_ONCE
from realtime.process import this_process
from tests.builders import person, started_run
from tests.realtime.acts import cookie_of, make_stream, note, record, record_many, rename_table, status
from tests.realtime.sockets import Closed, Socket, eventually

PATHS = ["/ws/dashboard", "/ws/admin"]


async def signed_in(name, role):
    return await asyncio.to_thread(lambda: cookie_of(person(name, role)))


async def connected(path, role="viewer", name="ada"):
    socket = await Socket(path, cookie=await signed_in(name, role)).connect()
    socket.opening = await socket.opened()
    return socket


# ── who gets in ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("suffix", ["", "/"])
@pytest.mark.parametrize(
    ("path", "role"), [("/ws/dashboard", "viewer"), ("/ws/admin", "admin"), ("/ws", ""), ("/ws/dashboard", "admin")]
)
async def test_people_get_in_by_session_and_role_on_every_spelling_of_the_path(loop, prefix, suffix, path, role):
    socket = await connected(f"{prefix}{path}{suffix}", role)

    assert socket.opening["welcome"][0]["protocol"] == "qflare.v1"


@pytest.mark.parametrize("path", PATHS)
async def test_who_is_not_signed_in_is_told_so_and_told_to_stay_away(loop, path):
    socket = await Socket(path).connect()

    code, frames = await socket.closed()

    assert code == 4500
    assert [frame["event"] for frame in frames] == ["error", "bye"]
    assert frames[0]["data"]["code"] == "not_authenticated"


@pytest.mark.parametrize(("path", "role"), [("/ws/dashboard", ""), ("/ws/admin", "operator")])
async def test_who_has_too_low_a_role_is_refused(loop, path, role):
    socket = await Socket(path, cookie=await signed_in("eve", role)).connect()

    assert (await socket.closed())[0] == 4503


async def test_a_public_dashboard_is_open_to_everybody_and_admin_is_not(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    anybody = await Socket("/ws/dashboard").connect()
    welcome = (await anybody.opened())["welcome"][0]

    assert (welcome["user"], welcome["roles"]) == (None, ["viewer"])
    assert (await (await Socket("/ws/admin").connect()).closed())[0] == 4500


@pytest.mark.parametrize("path", [*PATHS, "/ws"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
async def test_a_page_of_a_foreign_origin_is_refused_and_logged(loop, path, origin, caplog):
    cookie = await signed_in("ada", "admin")

    with pytest.raises(Closed):
        await Socket(path, cookie=cookie, origin=origin).connect()

    assert "refused" in caplog.text
    assert origin in caplog.text
    assert cookie.partition("=")[2] not in caplog.text


async def test_without_an_origin_a_cookie_counts_for_nothing(loop):
    socket = await Socket("/ws/dashboard", cookie=await signed_in("ada", "admin"), origin=None).connect()

    assert (await socket.closed())[0] == 4500


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://localhost", "localhost:80", True),
        ("http://LOCALHOST:8000", "localhost:8000", True),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://127.0.0.1:8000", "localhost:8000", False),
        ("http://[::1]:8000", "[::1]:8000", True),
        # A stranger's name that points at this address: the host is none of ALLOWED_HOSTS.
        ("http://rebound.example:8000", "rebound.example:8000", False),
        ("https://app.example", "localhost:8000", True),
        ("http://app.example", "localhost:8000", False),
        ("https://app.example:444", "localhost:8000", False),
        ("null", "localhost:8000", False),
        ("http://localhost:99999", "localhost:99999", False),
        ("", "localhost", False),
    ],
)
def test_pages_of_this_host_and_of_listed_origins_are_let_in(settings, origin, host, allowed):
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    settings.QFLARE_ALLOWED_ORIGINS = ["https://app.example"]

    assert origin_is_allowed(origin, host) is allowed


def test_a_wildcard_among_the_hosts_does_not_let_foreign_origins_in(settings):
    settings.ALLOWED_HOSTS = ["*"]
    settings.QFLARE_ALLOWED_ORIGINS = []

    assert not origin_is_allowed("https://evil.example", "localhost:8000")


def test_behind_tls_a_page_without_tls_is_foreign(settings):
    settings.QFLARE_BEHIND_TLS = True

    assert origin_is_allowed("https://localhost", "localhost")
    assert not origin_is_allowed("http://localhost", "localhost")


async def test_the_protocol_is_chosen_as_a_subprotocol_where_it_is_offered(loop):
    offering = await Socket("/ws", subprotocols=["other", "qflare.v1"]).connect()
    silent = await Socket("/ws").connect()

    assert (offering.subprotocol, silent.subprotocol) == ("qflare.v1", None)


async def test_a_path_without_a_socket_is_refused_before_anything_is_accepted(loop):
    with pytest.raises(Closed):
        await Socket("/ws/nowhere").connect()


# ── what they see ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def everybody():
    return {
        "dashboard": await connected("/ws/dashboard", "viewer", "vera"),
        "admin's dashboard": await connected("/ws/dashboard", "admin", "anna"),
        "admin": await connected("/ws/admin", "admin", "adam"),
        "anybody": await connected("/ws", "", "nobody"),
    }


@pytest.mark.parametrize(
    ("stream", "labels", "seen_by"),
    [
        ("system", {}, {"dashboard", "admin's dashboard", "admin"}),
        ("run:1", {"task": "linear"}, {"dashboard", "admin's dashboard", "admin"}),
        ("run:2", {"task": "linear", "public": True}, {"dashboard", "admin's dashboard", "admin", "anybody"}),
        ("audience:dashboard", {}, {"dashboard", "admin's dashboard"}),
        ("audience:admin", {}, {"admin"}),
        ("audience:general", {}, {"anybody"}),
        ("audience:clients", {}, set()),
        ("device:5", {}, set()),
    ],
)
@pytest.mark.parametrize("is_there_before", [True, False])
async def test_everybody_hears_what_they_may_see_and_nothing_else(loop, stream, labels, seen_by, is_there_before):
    if is_there_before:
        await make_stream(stream, **labels)
    sockets = await everybody()
    await make_stream(stream, **labels)

    await record(stream, note("heard"))
    await asyncio.to_thread(lambda: None)

    for name in seen_by:
        frame = await sockets[name].until("error_notification")
        assert (frame["stream"], frame["data"]["title"]) == (stream, "heard")
    for socket in sockets.values():
        assert socket.waiting == 0


async def test_an_admin_follows_a_device_on_request(loop):
    await make_stream("device:5")
    await record("device:5", note("before"))
    admin = await connected("/ws/admin", "admin")
    assert "device:5" not in admin.opening["welcome"][0]["streams"]

    await admin.say("sub", id="s", streams=["device:5"])

    assert (await admin.until("result"))["id"] == "s"
    assert (await admin.until("recent_events"))["data"]["stream"] == "device:5"
    await record("device:5", note("after"))
    assert (await admin.until("error_notification"))["seq"] == 2


# ── taking up streams ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_position_in_the_url_is_resumed_without_a_word_of_the_client(loop):
    await record_many("system", 5)
    epoch = await asyncio.to_thread(lambda: Stream.objects.get(pk="system").epoch)
    cookie = await signed_in("ada", "viewer")

    socket = await Socket(f"/ws/dashboard?since=system:{epoch}:3", cookie=cookie).connect()

    welcome = (await socket.frame())["data"]
    assert welcome["streams"] == {"system": {"epoch": epoch, "seq": 5}}
    recent = (await socket.frame())["data"]
    assert recent["recovered"]
    assert [event["seq"] for event in recent["events"]] == [4, 5]
    await record("system", note("live"))
    assert (await socket.frame())["seq"] == 6


@pytest.mark.parametrize(
    "since", ["system", "system:", ":::", "system:x:-1", "system:x:9223372036854775808", "a:b:c:d"]
)
async def test_a_position_that_is_none_is_passed_over(loop, since):
    await record("system")
    cookie = await signed_in("ada", "viewer")

    socket = await Socket(f"/ws/dashboard?since={since}", cookie=cookie).connect()

    assert (await socket.opened())["recent_events"][0]["reason"] in ("fresh", "epoch")


async def test_a_run_that_has_ended_is_followed_on_request_alone(loop):
    from tests.builders import started_run

    def ended_run():
        from django.utils import timezone

        run = started_run()
        run.state, run.ended_at = "stopped", timezone.now()
        run.save()
        return run.stream

    stream = await asyncio.to_thread(ended_run)
    socket = await connected("/ws/dashboard")
    assert stream not in socket.opening["welcome"][0]["streams"]

    await socket.say("sub", streams=[stream])

    assert (await socket.until("recent_events"))["data"]["stream"] == stream


@pytest.mark.parametrize("is_read_from_the_log", [False, True])
async def test_a_run_that_begins_meanwhile_can_be_resumed_though_it_has_ended_meanwhile(loop, is_read_from_the_log):
    """Nobody is told unasked of a run that has ended: who did not know its epoch could not ask for the rest of it."""
    from tests.builders import started_run

    socket = await connected("/ws/dashboard")
    run = await asyncio.to_thread(started_run)
    first = await socket.until("fl_status_update")
    if is_read_from_the_log:
        hub = this_process().hub
        first = json.loads((await hub.log.after(run.stream, first["epoch"], 0))[0].frame.text)
    await record(run.stream, note("seen"))
    assert "epoch" not in await socket.until("error_notification", title="seen")
    await socket.leave()
    await asyncio.to_thread(Run.objects.update, state="completed", ended_at=timezone.now())
    await record(run.stream, status(run.pk, "completed"))

    cookie = await signed_in("ben", "viewer")
    stands = f"{run.stream}:{first['epoch']}:{first['seq']}"
    back = await Socket(f"/ws/dashboard?since={stands}", cookie=cookie).connect()

    recent = (await back.until("recent_events", stream=run.stream))["data"]
    assert recent["recovered"]
    assert [event["event"] for event in recent["events"]][-2:] == ["error_notification", "fl_status_update"]


async def test_hello_resumes_and_promises_heartbeats(loop):
    await record_many("system", 4)
    socket = await connected("/ws/dashboard")
    epoch = socket.opening["welcome"][0]["streams"]["system"]["epoch"]

    await socket.say("hello", protocol="qflare.v1", since={"system": {"epoch": epoch, "seq": 1}})

    recent = (await socket.until("recent_events"))["data"]
    assert (recent["recovered"], recent["since"], recent["to"]) == (True, 1, 4)


async def test_hello_of_another_protocol_is_an_error_for_good(loop):
    socket = await connected("/ws/dashboard")

    await socket.say("hello", protocol="qflare.v9")

    assert (await socket.closed())[0] == 4501


async def test_what_the_server_fails_at_is_no_mistake_of_the_one_who_asked(loop, settings):
    settings.QFLARE_MAX_MISTAKES = 2
    socket = await connected("/ws/dashboard")
    await asyncio.to_thread(rename_table, "fl_stream", "fl_away")
    try:
        for _ in range(4):
            await socket.say("sub", streams=["system"])
            assert (await socket.until("error"))["data"]["code"] == "internal"
    finally:
        await asyncio.to_thread(rename_table, "fl_away", "fl_stream")

    await socket.say("sub", streams=["system"])
    assert (await socket.until("result"))["data"]["ok"]


async def test_a_stream_that_may_not_be_seen_and_one_that_is_not_there_answer_alike(loop):
    await make_stream("audience:admin")
    socket = await connected("/ws/dashboard", "operator")

    answers = []
    for name in ("audience:admin", "audience:nobody"):
        await socket.say("sub", id="1", streams=[name])
        assert (await socket.until("result"))["data"]["result"] == {"streams": 0}
        answers.append((await socket.until("error"))["data"]["message"].replace(name, "it"))

    assert answers[0] == answers[1]


async def test_streams_are_taken_up_for_a_peer_no_faster_than_it_takes_what_was_asked_before(loop):
    await record("system")
    socket = await connected("/ws/dashboard")
    socket.takes.clear()
    for number in range(REPLAYS_AT_ONCE):
        await socket.say("sub", id=str(number), streams=["system"])
    await socket.say("sub", id="too many", streams=["system"])
    await socket.say("hello", id="this too", protocol="qflare.v1", since={"system": {"epoch": "e", "seq": 1}})
    await eventually(lambda: connection_of(socket).queued[0] >= REPLAYS_AT_ONCE + 1)

    socket.takes.set()

    answers = {}
    while len(answers) < REPLAYS_AT_ONCE + 2:
        frame = await socket.frame()
        if "id" in frame:
            answers[frame["id"]] = (frame["event"], frame["data"].get("code"), frame["data"].get("retry_after"))
    refused = ("error", "rate_limited", 1)
    assert answers == {
        **{str(number): ("result", None, None) for number in range(REPLAYS_AT_ONCE)},
        "too many": refused,
        "this too": refused,
    }
    await eventually(lambda: not connection_of(socket).is_behind)
    await socket.say("sub", id="now", streams=["system"])
    assert (await socket.until("result"))["id"] == "now"


def connection_of(socket):
    connection_id = socket.opening["welcome"][0]["connection_id"]
    return next(one for one in this_process().hub.connections() if one.id == connection_id)


async def test_who_leaves_a_stream_hears_no_more_of_it_and_takes_up_nothing_unasked(loop):
    await record("system")
    socket = await connected("/ws/dashboard")
    await make_stream("run:1", task="linear")
    await socket.say("unsub", id="1", streams=["system"])
    await socket.until("result")

    await record("system", note("unheard"))
    await record("run:1", note("unheard too"))
    await socket.say("sub", streams=["run:1"])
    await socket.until("recent_events")
    await record("run:1", note("heard"))

    assert (await socket.until("error_notification"))["data"]["title"] == "heard"


async def test_while_a_stream_is_taken_up_again_its_events_neither_get_lost_nor_come_twice(loop):
    await record_many("system", 20)
    socket = await connected("/ws/dashboard")
    epoch = socket.opening["welcome"][0]["streams"]["system"]["epoch"]

    async def publish():
        for n in range(21, 61):
            await record("system", note(str(n)))

    publishing = asyncio.create_task(publish())
    for _ in range(5):
        await socket.say("sub", streams=["system"], since={"system": {"epoch": epoch, "seq": 10}})
        await asyncio.sleep(0.02)
    await publishing

    position, new = 20, []
    while position < 60:
        frame = await socket.frame()
        if frame["event"] == "recent_events":
            assert frame["data"]["since"] <= position
            new += [event["seq"] for event in frame["data"]["events"] if event["seq"] > position]
        elif "seq" in frame and frame["seq"] > position:
            new.append(frame["seq"])
        position = max(position, *new[-1:], position)
    assert new == list(range(21, 61))


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"type":', "invalid_json"),
        ("not json", "invalid_json"),
        ('"a scalar"', "invalid_message"),
        ("[]", "invalid_message"),
        ("{}", "invalid_message"),
        ('{"type":"dance"}', "unknown_type"),
        ('{"type":"sub"}', "invalid_message"),
        ('{"type":"sub","streams":"system"}', "invalid_message"),
        ('{"type":"heartbeat","extra":1}', "invalid_message"),
        ("[" * 5000, "invalid_message"),
        ('{"type":"sub","streams":[' + "[" * 5000, "invalid_message"),
        ('{"type":"cmd","name":"x","idem":"1","args":' + '{"a":' * 5000, "invalid_json"),
        ('{"type":"sub","streams":["\\ud800"]}', "invalid_json"),
        ('{"type":"heartbeat","id":NaN}', "invalid_json"),
        ('{"type":"ack","stream":"x","seq":1e400}', "invalid_message"),
        (" " * 70_000, "too_large"),
        ('{"type":"sub","streams":["' + "ä" * 40_000 + '"]}', "too_large"),
        ('{"type":"ack","stream":"system","seq":1}', "unknown_type"),
        ('{"type":"auth","signature":"x"}', "unknown_type"),
        ('{"type":"cmd","name":"admin.broadcast","idem":"1"}', "unknown_type"),
        ('{"type":"sub","streams":["x"],"since":{"x":{"epoch":"e","seq":99999999999999999999}}}', "not_found"),
    ],
)
async def test_bad_input_is_answered_and_the_connection_lives(loop, text, code):
    socket = await connected("/ws/dashboard")

    await socket.say_text(text)

    assert (await socket.until("error"))["data"]["code"] == code
    await record("system", note("alive"))
    assert (await socket.until("error_notification"))["data"]["title"] == "alive"


async def test_a_binary_frame_is_answered_and_the_connection_lives(loop):
    socket = await connected("/ws/dashboard")

    await socket.say_bytes(b"weights")

    assert (await socket.until("error"))["data"]["code"] == "binary_not_supported"


async def test_an_error_names_the_message_it_answers(loop):
    socket = await connected("/ws/dashboard")

    await socket.say("sub", id="17", streams=7)

    assert (await socket.until("error"))["id"] == "17"


async def test_ten_mistakes_in_a_minute_end_the_connection(loop):
    socket = await connected("/ws/dashboard")

    for _ in range(10):
        await socket.say_text("x")

    code, frames = await socket.closed()
    assert code == 4501
    assert [frame["event"] for frame in frames] == ["error"] * 10 + ["bye"]


async def test_who_sends_too_fast_is_told_to_wait_and_then_told_to_go(loop):
    socket = await connected("/ws/dashboard")

    for _ in range(40):
        await socket.say("heartbeat")

    code, frames = await socket.closed()
    assert code == 4013
    assert frames[0]["data"]["code"] == "rate_limited"
    assert frames[0]["data"]["retry_after"] > 0


# ── heartbeats ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_heartbeats_tell_the_heads_that_moved_and_nothing_when_idle(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 0.3
    await record("system")
    socket = await connected("/ws/dashboard")
    assert (await socket.until("heartbeat"))["data"] == {"s": {}}

    await record("system")

    await socket.until("error_notification")
    assert (await socket.until("heartbeat"))["data"]["s"] == {"system": 2}
    assert (await socket.until("heartbeat"))["data"]["s"] == {}


async def test_a_heartbeat_with_an_id_is_answered_so_that_the_way_can_be_measured(loop):
    socket = await connected("/ws/dashboard")

    await socket.say("heartbeat")
    await socket.say("heartbeat", id="way-1")

    answer = await socket.until("result")
    assert (answer["id"], answer["data"]["ok"]) == ("way-1", True)


async def test_one_who_only_listens_stays_connected(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 0.2
    socket = await connected("/ws/dashboard")

    for _ in range(10):
        await socket.until("heartbeat")


async def test_one_who_answered_once_and_then_no_more_is_ended(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 0.3
    socket = await connected("/ws/dashboard")
    await socket.until("heartbeat")

    await socket.say("heartbeat")

    assert (await socket.closed())[0] == 4009


async def test_one_whom_the_heartbeat_has_not_reached_yet_is_not_expected_to_answer_it(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 0.3
    await record("system")
    neighbour = await connected("/ws/dashboard")
    socket = await connected("/ws/dashboard", name="eva")
    await socket.say("heartbeat", id="kept")
    await socket.until("result")
    socket.takes.clear()
    await record("system", note("waits before the heartbeats"))

    for _ in range(4):
        await neighbour.until("heartbeat")
    socket.takes.set()
    await socket.say("heartbeat", id="still here")

    assert (await socket.until("result"))["id"] == "still here"
    assert (await socket.closed())[0] == 4009


# ── the end of rights ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_signing_out_ends_the_sockets_of_that_session_at_once_and_no_others(loop):
    def two_browsers():
        user = person("ada", "viewer")
        return user, cookie_of(user), cookie_of(user)

    _, one, other = await asyncio.to_thread(two_browsers)
    leaving, staying = (
        await Socket("/ws/dashboard", cookie=one).connect(),
        await Socket("/ws/dashboard", cookie=other).connect(),
    )
    await leaving.opened()
    await staying.opened()

    def sign_out():
        client = Client()
        client.cookies.load(one)
        client.logout()

    await asyncio.to_thread(sign_out)

    assert (await leaving.closed())[0] == 4002
    await record("system", note("still here"))
    await staying.until("error_notification")


async def test_a_lost_role_ends_the_socket_at_once(loop):
    user = await asyncio.to_thread(person, "ada", "admin")
    socket = await Socket("/ws/admin", cookie=await asyncio.to_thread(cookie_of, user)).connect()
    await socket.opened()

    await asyncio.to_thread(lambda: user.groups.clear())
    await asyncio.to_thread(lambda: user.groups.add(Group.objects.get_or_create(name="viewer")[0]))

    assert (await socket.closed())[0] == 4503


@pytest.mark.parametrize(
    "take_away",
    [
        lambda group: group.user_set.clear(),
        lambda group: group.delete(),
        lambda group: Group.objects.filter(pk=group.pk).delete(),
        lambda group: Group(pk=group.pk, name="nothing").save(),
    ],
    ids=["emptied", "deleted", "deleted with others", "renamed"],
)
async def test_a_role_that_is_taken_from_all_who_have_it_ends_their_sockets_at_once(loop, take_away):
    socket = await connected("/ws/admin", "admin")

    await asyncio.to_thread(lambda: take_away(Group.objects.get(name="admin")))

    assert (await socket.closed())[0] == 4503


@pytest.mark.parametrize("is_told_by_an_event", [True, False])
async def test_a_run_that_is_public_no_more_is_taken_away_and_named(loop, settings, is_told_by_an_event):
    settings.QFLARE_POLL_SECONDS = 3600
    await make_stream("run:1", task="linear", public=True)
    await make_stream("run:2", task="linear", public=True)
    await record("run:1")
    anybody, watching = await connected("/ws", "", "eve"), await connected("/ws/dashboard")
    for socket in (anybody, watching):
        await socket.say("sub", streams=["run:1", "run:2"])
        await socket.until("recent_events", stream="run:2")

    await asyncio.to_thread(lambda: Stream.objects.filter(pk="run:1").update(public=False))
    if is_told_by_an_event:
        await record("run:1", note("private"))
    else:
        await this_process().hub.poll()

    error = await anybody.until("error")
    assert error["data"]["code"] == "unauthorized"
    assert "run:1" in error["data"]["message"]
    await record("run:1", note("private too"))
    await record("run:2", note("public"))
    assert (await anybody.frame())["data"]["title"] == "public"
    assert (await watching.until("error_notification", title="private too"))["stream"] == "run:1"


@pytest.mark.parametrize("is_told_by_an_event", [True, False])
async def test_the_stream_of_a_run_in_the_trash_is_taken_from_all_and_is_answered_like_none(
    loop, settings, is_told_by_an_event
):
    settings.QFLARE_POLL_SECONDS = 3600
    ada, run = await asyncio.to_thread(lambda: (person("ada", "admin"), started_run(public=True)))
    await asyncio.to_thread(lambda: runs.stop_run(run=run, now=timezone.now()))
    anybody, watching = await connected("/ws", "", "eve"), await connected("/ws/dashboard", "viewer", "vera")
    for socket in (anybody, watching):
        await socket.say("sub", streams=[run.stream])
        await socket.until("recent_events", stream=run.stream)

    await asyncio.to_thread(lambda: trash.move_to_trash(run=run, now=timezone.now(), by=ada))
    if is_told_by_an_event:
        await record(run.stream, note("not to be heard"))
    else:
        await this_process().hub.poll()

    for socket, audience in ((anybody, "general"), (watching, "dashboard")):
        error = await socket.until("error")
        assert (error["data"]["code"], run.stream in error["data"]["message"]) == ("unauthorized", True)
        await socket.say("sub", streams=[run.stream], id="again")
        assert (await socket.until("error"))["data"]["code"] == "not_found"
        await record(f"audience:{audience}", note("still here"))
        assert (await socket.until("error_notification"))["data"]["title"] == "still here"


async def test_people_are_told_when_a_run_goes_to_the_trash_and_its_stream_goes_on_once_it_is_back(loop, settings):
    settings.QFLARE_POLL_SECONDS = 3600
    run = await asyncio.to_thread(started_run)
    await asyncio.to_thread(lambda: runs.stop_run(run=run, now=timezone.now()))
    before, anybody = await asyncio.to_thread(Stream.objects.get, pk=run.stream), await connected("/ws", "", "eve")
    watching = await connected("/ws/dashboard")

    await asyncio.to_thread(lambda: trash.move_to_trash(run=run, now=timezone.now()))
    gone = await watching.until("run_trash")
    await this_process().hub.poll()
    await asyncio.to_thread(lambda: trash.restore_run(run=run, now=timezone.now()))
    back = await watching.until("run_trash")
    await watching.say("sub", streams=[run.stream])
    again = await watching.until("recent_events", stream=run.stream)

    assert (gone["stream"], gone["data"]["state"]) == ("system", "in_trash")
    assert (back["data"]["run_id"], back["data"]["state"]) == (run.pk, "restored")
    assert (again["data"]["epoch"], again["data"]["to"]) == (before.epoch, before.head)
    await record("audience:general", note("all there was"))
    assert (await anybody.frame())["data"]["title"] == "all there was"


async def test_a_person_who_is_switched_off_is_ended_at_once(loop):
    user = await asyncio.to_thread(person, "ada", "viewer")
    socket = await Socket("/ws/dashboard", cookie=await asyncio.to_thread(cookie_of, user)).connect()
    await socket.opened()

    user.is_active = False
    await asyncio.to_thread(user.save)

    assert (await socket.closed())[0] == 4002


async def test_a_changed_password_ends_the_socket_at_once(loop):
    user = await asyncio.to_thread(person, "ada", "viewer")
    socket = await Socket("/ws/dashboard", cookie=await asyncio.to_thread(cookie_of, user)).connect()
    await socket.opened()

    user.set_password("another long password")
    await asyncio.to_thread(user.save)

    assert (await socket.closed())[0] == 4002


async def test_a_session_that_is_gone_is_found_by_the_clock(loop, settings):
    from django.contrib.sessions.models import Session

    settings.QFLARE_RECHECK_SECONDS = 0.2
    socket = await connected("/ws/dashboard")

    await asyncio.to_thread(lambda: Session.objects.all().delete())

    assert (await socket.closed())[0] == 4002


async def test_while_the_database_is_away_people_stay_on_trust_for_a_while_and_no_longer(loop, settings, monkeypatch):
    from django.db import OperationalError

    from realtime import authentication

    def away(*_):
        raise OperationalError("the database is away")

    signed_in, anybody = await connected("/ws/dashboard"), await connected("/ws", "", "eve")
    monkeypatch.setattr(authentication, "standing_of", away)
    with pytest.raises(OperationalError):
        await this_process().recheck()
    await record("system", note("on trust"))
    await signed_in.until("error_notification")

    settings.QFLARE_TRUST_SECONDS = 0
    with pytest.raises(OperationalError):
        await this_process().recheck()

    assert (await signed_in.closed())[0] == 4002
    await make_stream("run:1", task="linear", public=True)
    await record("run:1", note("still here"))
    await anybody.until("error_notification")


async def test_everybody_is_looked_at_in_a_handful_of_queries(loop, django_assert_max_num_queries):
    from realtime.authentication import standing_of

    def count():
        from django.utils import timezone

        users = [person(f"p{n}", "viewer") for n in range(20)]
        keys = [cookie_of(user).partition("=")[2] for user in users]
        with django_assert_max_num_queries(3):
            standing = standing_of([user.pk for user in users], keys, timezone.now())
            return len(standing.sessions), len(standing.password_digests)

    assert await asyncio.to_thread(count) == (20, 20)


async def test_signing_in_elsewhere_disturbs_nobody(loop):
    user = await asyncio.to_thread(person, "ada", "viewer")
    socket = await Socket("/ws/dashboard", cookie=await asyncio.to_thread(cookie_of, user)).connect()
    await socket.opened()

    await asyncio.to_thread(cookie_of, user)

    await this_process().recheck()
    await record("system", note("here"))
    await socket.until("error_notification")


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_admin_broadcasts_to_chosen_types_once_however_often_it_is_sent(loop):
    sockets = await everybody()
    args = {"message": "maintenance at noon", "audiences": ["dashboard", "general"], "level": "warning"}

    for id in ("1", "2"):
        await sockets["admin"].say("cmd", id=id, name="admin.broadcast", args=args, idem="k1")
        result = await sockets["admin"].until("result")
        assert (result["id"], result["data"]["ok"]) == (id, True)

    assert result["data"]["result"] == {"audiences": "dashboard, general", "repeated": True}
    for name in ("dashboard", "admin's dashboard", "anybody"):
        data = (await sockets[name].until("broadcast"))["data"]
        assert (data["message"], data["sender"], data["level"]) == ("maintenance at noon", "adam", "warning")
        assert sockets[name].waiting == 0
    assert sockets["admin"].waiting == 0
    assert await asyncio.to_thread(lambda: Event.objects.filter(event="broadcast").count()) == 2
    assert await asyncio.to_thread(IdempotentRequest.objects.count) == 1


async def test_a_broadcast_by_socket_is_noted_once_with_its_person_address_and_door(loop, settings):
    settings.QFLARE_TRUSTED_PROXIES = [ip_network("127.0.0.1/32")]
    cookie, proxied = await signed_in("ada", "admin"), {"x-forwarded-for": "192.0.2.7"}
    admin = await Socket("/ws/admin", cookie=cookie, headers=proxied).connect()
    await admin.opened()

    for id, message in (("1", "noon"), ("2", "noon"), ("3", "")):
        args = {"message": message, "audiences": ["admin"]}
        await admin.say("cmd", id=id, name="admin.broadcast", args=args, idem=f"of {message}")
        await admin.until("result" if message else "error")

    entries = AuditEntry.objects.filter(act="broadcast.send").values_list("person_name", "subject", "address", "door")
    assert await asyncio.to_thread(list, entries) == [("ada", "to admin", "192.0.2.7", "socket")]


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("admin.broadcast", {"message": "", "audiences": ["admin"]}, "invalid"),
        ("admin.broadcast", {"message": "x", "audiences": []}, "invalid"),
        ("admin.broadcast", {"message": "x", "audiences": ["moon"]}, "invalid"),
        ("admin.broadcast", {"message": "x"}, "invalid"),
        ("admin.reboot", {}, "not_found"),
    ],
)
async def test_a_command_that_cannot_be_is_refused_with_its_reason(loop, name, args, code):
    admin = await connected("/ws/admin", "admin")

    await admin.say("cmd", id="9", name=name, args=args, idem="k")

    error = await admin.until("error")
    assert (error["id"], error["data"]["code"]) == ("9", code)
    assert await asyncio.to_thread(Event.objects.count) == 0


async def test_a_key_that_was_used_for_another_command_is_a_conflict(loop):
    admin = await connected("/ws/admin", "admin")
    for message in ("one", "two"):
        args = {"message": message, "audiences": ["admin"]}
        await admin.say("cmd", id=message, name="admin.broadcast", args=args, idem="same")

    assert (await admin.until("error"))["data"]["code"] == "idempotency_conflict"


async def test_a_command_needs_an_id_and_one_of_its_own(loop):
    admin = await connected("/ws/admin", "admin")

    await admin.say("cmd", name="admin.statistics", idem="1")
    assert (await admin.until("error"))["data"]["code"] == "invalid_message"
    await admin.say("cmd", id="7", name="admin.statistics", idem="2")
    assert (await admin.until("result"))["id"] == "7"
    await admin.say("cmd", id="7", name="admin.statistics", idem="3")

    error = await admin.until("error")
    assert (error["id"], error["data"]["code"]) == ("7", "invalid_message")


async def test_an_admin_asks_for_the_figures_of_all_connections(loop):
    sockets = await everybody()

    await sockets["admin"].say("cmd", id="1", name="admin.statistics", idem="x")

    result = (await sockets["admin"].until("result"))["data"]["result"]
    assert (result["connections.dashboard"], result["connections.admin"], result["connections.general"]) == (2, 1, 1)
    assert (result["total"], result["processes"]) == (4, 1)


def test_positions_are_read_as_pages_write_them():
    from realtime.consumers.base import positions_of

    assert positions_of(["run:1:Kq3v-x_1:12", "system:abc:0"]) == {
        "run:1": Position(epoch="Kq3v-x_1", seq=12),
        "system": Position(epoch="abc", seq=0),
    }
