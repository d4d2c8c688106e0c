"""Devices: the handshake and each way to spoil it, what they hear, what they report, and presence."""

import asyncio
import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from fl import devices, events
from fl.devices import device_of_token
from fl.lifecycle import AssignmentState
from fl.models import Assignment, Device, Event, PresenceLease
from realtime.database import THREADS, query
from realtime.memory_layer import MemoryChannelLayer
from realtime.process import this_process
from tests.builders import participant, person, started_run, step
from tests.realtime.acts import cookie_of, make_stream, note, record, rename_table, tick_now
from tests.realtime.devices import another_key, answer_to, connected_device, hello_of, shake_hands
from tests.realtime.sockets import Socket, eventually


async def enrolled(**options):
    return await asyncio.to_thread(lambda: participant(now=timezone.now(), **options))


def training_run():
    """Start a run of one device, and let its first round train."""
    run = started_run(now=timezone.now(), cohort_size=1, quorum=1)
    step(run, timezone.now())


async def presence_of(device):
    return await asyncio.to_thread(lambda: PresenceLease.objects.filter(device=device.device).first())


# ── the handshake ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/ws/clients", "/api/ws/clients", "/ws/clients/", "/api/ws/clients/"])
async def test_a_device_that_proves_its_key_gets_a_token_its_streams_and_what_is_true(loop, path):
    device = await enrolled()

    socket = await connected_device(device, path=path)

    welcome = socket.opening["welcome"][0]
    assert welcome["device_id"] == device.device.pk
    assert f"device:{device.device.pk}" in welcome["streams"]
    token = welcome["token"]["token"]
    found = await asyncio.to_thread(lambda: device_of_token(token=token, now=timezone.now()))
    assert found == device.device
    assert socket.opening["snapshot"][0]["assignment"] is None
    lease = await presence_of(device)
    assert (lease.connection_id, lease.instance) == (welcome["connection_id"], this_process().instance)


async def refusal_of(socket):
    """Return all that a refused device hears, less what is random."""
    code, frames = await socket.closed()
    return code, [(frame["event"], frame["data"].get("message", "")) for frame in frames]


async def test_an_unknown_device_and_a_wrong_key_hear_exactly_the_same(loop):
    known = await enrolled()
    unknown = await enrolled()
    await asyncio.to_thread(lambda: Device.objects.filter(pk=unknown.device.pk).delete())

    answers = [
        await refusal_of(await shake_hands(known, key=another_key())),
        await refusal_of(await shake_hands(unknown)),
        await refusal_of(await shake_hands(unknown, key=another_key())),
        await refusal_of(await shake_hands(known, device_id=10**18)),
        await refusal_of(await shake_hands(known, device_id=10**30)),
    ]

    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 4500
    assert await presence_of(known) is None


@pytest.mark.parametrize("move", ["suspend", "revoke"])
async def test_a_barred_device_learns_that_it_is_barred_only_when_it_proved_its_key(loop, move):
    device = await enrolled()
    bar = getattr(devices, move)
    await asyncio.to_thread(lambda: bar(device=device.device, reason="lost", now=timezone.now(), by=None))

    code, _ = await refusal_of(await shake_hands(device))
    wrong, _ = await refusal_of(await shake_hands(device, key=another_key()))

    assert (code, wrong) == (4505, 4500)
    assert await presence_of(device) is None


async def test_a_device_that_nobody_has_approved_may_come_again_and_is_let_in_once_it_is(loop):
    device = await enrolled(auto_approve=False)

    assert (await refusal_of(await shake_hands(device)))[0] == 4011
    await asyncio.to_thread(lambda: devices.approve(device=device.device, now=timezone.now(), by=None))

    assert "welcome" in (await connected_device(device)).opening


async def test_an_answer_to_another_challenge_is_worth_nothing(loop):
    device = await enrolled()
    hello = hello_of(device)
    first, second = await Socket("/ws/clients").connect(), await Socket("/ws/clients").connect()
    for socket in (first, second):
        await socket.say_text(hello)
    answer = answer_to(await first.text(), hello, device.key)

    await second.text()
    await second.say_text(answer)

    assert (await second.closed())[0] == 4500


async def test_an_answer_works_once(loop):
    device = await enrolled()
    hello = hello_of(device)
    socket = await Socket("/ws/clients").connect()
    await socket.say_text(hello)
    answer = answer_to(await socket.text(), hello, device.key)
    await socket.say_text(answer)
    await socket.opened()

    await socket.say_text(answer)

    assert (await socket.until("error"))["data"]["code"] == "invalid_message"


@pytest.mark.parametrize(
    "text", ['{"type":"heartbeat"}', '{"type":"auth","signature":"AAAA"}', '{"type":"sub","streams":["system"]}']
)
async def test_nothing_is_answered_before_the_handshake(loop, text):
    socket = await Socket("/ws/clients").connect()

    await socket.say_text(text)

    assert (await socket.closed())[0] == 4500


@pytest.mark.parametrize("changes", [{"device_id": None}, {"client_nonce": None}])
async def test_a_hello_without_id_or_nonce_is_refused(loop, changes):
    device = await enrolled()
    socket = await Socket("/ws/clients").connect()

    await socket.say_text(hello_of(device, **changes))

    assert (await socket.closed())[0] == 4500


async def test_a_device_of_another_protocol_is_told_to_stay_away(loop):
    device = await enrolled()
    socket = await Socket("/ws/clients").connect()

    await socket.say_text(hello_of(device, protocol="qflare.v9"))

    assert (await socket.closed())[0] == 4501


async def test_a_signature_that_is_not_base64_is_refused_like_a_wrong_one(loop):
    device = await enrolled()
    socket = await Socket("/ws/clients").connect()
    await socket.say_text(hello_of(device))
    await socket.text()

    await socket.say("auth", signature="§§§")

    assert (await socket.closed())[0] == 4500


async def test_one_who_is_slow_is_not_waited_for_and_may_come_again(loop, settings):
    device = await enrolled()
    settings.QFLARE_HANDSHAKE_SECONDS = 0.2
    silent = await Socket("/ws/clients").connect()
    half = await Socket("/ws/clients", origin=None).connect()
    await half.say_text(hello_of(device))
    await half.text()

    for socket in (silent, half):
        code, frames = await socket.closed()
        assert code == 4001
        assert [frame["event"] for frame in frames] == ["bye"]
        assert frames[0]["data"]["reason"] == "the connection was not opened in time"


async def test_a_persons_cookie_counts_for_nothing_here(loop):
    cookie = await asyncio.to_thread(lambda: cookie_of(person("ada", "admin")))
    socket = await Socket("/ws/clients", cookie=cookie).connect()

    await socket.say("heartbeat")

    assert (await socket.closed())[0] == 4500


# ── what a device hears ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_device_hears_its_own_stream_and_runs_of_its_tasks_and_nothing_of_others(loop):
    device, other = await enrolled(), await enrolled()
    for name, labels in (("run:8", {"task": "linear"}), ("run:9", {"task": "digits"})):
        await make_stream(name, **labels)
    socket = await connected_device(device)
    heard = [f"device:{device.device.pk}", "audience:clients", "run:8", "run:7"]
    unheard = [f"device:{other.device.pk}", "system", "audience:dashboard", "audience:general", "run:9"]
    await make_stream("run:7", task="linear")

    for stream in [*unheard, *heard]:
        await record(stream, note(stream))
    await asyncio.to_thread(tick_now, "progress:1")
    await asyncio.to_thread(tick_now, "updates:1", stream="run:8")
    for _ in heard:
        frame = await socket.frame()
        assert frame["stream"] == frame["data"]["title"]
        assert frame["stream"] in heard

    await socket.say("heartbeat")
    assert (await socket.frame())["event"] == "heartbeat"


async def test_what_runs_tell_devices_names_no_device(loop):
    device = await enrolled()
    await connected_device(device)
    await asyncio.to_thread(training_run)

    names = await asyncio.to_thread(
        lambda: list(Event.objects.filter(stream__name__startswith="run:").values_list("data", flat=True))
    )

    assert names
    assert not any(device.device.name in data for data in names)


async def test_a_device_gets_its_open_assignment_with_every_snapshot(loop):
    device = await enrolled()
    socket = await connected_device(device)
    await asyncio.to_thread(training_run)
    told = (await socket.until("assignment"))["data"]
    await socket.leave()

    again = await connected_device(device)

    assert again.opening["snapshot"][-1]["assignment"] == told


async def test_events_of_a_device_that_it_has_not_acknowledged_come_again(loop):
    device = await enrolled()
    stream = device.device.stream
    socket = await connected_device(device)
    await record(stream, note("1"), note("2"), note("3"))
    for _ in range(3):
        await socket.until("error_notification")
    await socket.say("ack", stream=stream, seq=2)
    await eventually_acked(device, 2)
    await socket.leave()

    again = await connected_device(device)

    recent = next(one for one in again.opening["recent_events"] if one["stream"] == stream)
    assert (recent["recovered"], [event["seq"] for event in recent["events"]]) == (True, [3])


async def eventually_acked(device, seq):
    for _ in range(3000):
        if await asyncio.to_thread(lambda: Device.objects.get(pk=device.device.pk).acked_seq) == seq:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was never acknowledged")


@pytest.mark.parametrize(("stream", "seq"), [("system", 1), ("device:999", 1), (None, 99), (None, -1), (None, 10**30)])
async def test_only_what_a_device_has_heard_of_its_own_can_be_acknowledged(loop, stream, seq):
    device = await enrolled()
    socket = await connected_device(device)

    await socket.say("ack", stream=stream or device.device.stream, seq=seq)

    assert (await socket.until("error"))["data"]["code"] == "invalid_message"


# ── what a device says ────────────────────────────────────────────────────────────────────────────────────────────────


async def at_work():
    device = await enrolled()
    socket = await connected_device(device)
    await asyncio.to_thread(training_run)
    assignment_id = (await socket.until("assignment"))["data"]["assignment_id"]
    return socket, assignment_id


async def test_progress_reaches_dashboards_as_ticks_and_the_assignment_as_a_state(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    socket, assignment_id = await at_work()
    watching = await Socket("/ws/dashboard").connect()
    await watching.opened()

    await socket.say(
        "progress", assignment_id=assignment_id, state="training", progress=0.5, local_epoch=1, local_epochs=2, loss=0.7
    )

    frame = await watching.until("training_progress", assignment_id=None)
    (tick,) = frame["data"]["devices"]
    assert (tick["assignment_id"], tick["progress"], tick["local_epochs"]) == (assignment_id, 0.5, 2)
    assert tick["number"] > 0
    row = await asyncio.to_thread(lambda: Assignment.objects.get(pk=assignment_id))
    assert (row.state, row.progress) == (AssignmentState.TRAINING, 0.5)


async def test_what_the_devices_of_a_round_tell_goes_out_together(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_TICK_SECONDS = 0.3
    sockets = [await connected_device(await enrolled()) for _ in range(3)]

    def a_round_of_three():
        step(started_run(now=timezone.now(), cohort_size=3, quorum=3), timezone.now())

    await asyncio.to_thread(a_round_of_three)
    numbers = [(await socket.until("assignment"))["data"]["assignment_id"] for socket in sockets]
    watching = await Socket("/ws/dashboard").connect()
    await watching.opened()

    for socket, number in zip(sockets, numbers, strict=True):
        for share in (0.1, 0.2):
            await socket.say(
                "progress", assignment_id=number, state="training", progress=share, local_epoch=1, local_epochs=1
            )

    frames = []
    while True:
        frame = await watching.frame()
        if "key" in frame:
            frames.append(frame)
            told = {tick["assignment_id"]: tick["progress"] for tick in frame["data"]["devices"]}
            if told == dict.fromkeys(numbers, 0.2):
                break
    assert len({frame["key"] for frame in frames}) == 1
    assert len(frames) <= 3


@pytest.mark.parametrize(("state", "progress"), [("accepted", 0.5), ("training", 1.5), ("training", -0.1)])
async def test_progress_that_cannot_be_is_refused(loop, state, progress):
    socket, assignment_id = await at_work()

    await socket.say(
        "progress", id="p", assignment_id=assignment_id, state=state, progress=progress, local_epoch=1, local_epochs=2
    )

    error = await socket.until("error")
    assert (error["id"], error["data"]["code"]) == ("p", "invalid")


def progress_of(assignment_id, share, **changes):
    values = {"state": "training", "local_epoch": 1, "local_epochs": 2, **changes}
    return {"assignment_id": assignment_id, "progress": share, **values}


async def test_a_devices_heartbeat_does_not_wait_for_progress_that_cannot_be_written_now(loop):
    socket, assignment_id = await at_work()
    gate = threading.Event()
    busy = [asyncio.create_task(query(gate.wait, 30)) for _ in range(THREADS)]

    for share in (0.1, 0.2, 0.3):
        await socket.say("progress", **progress_of(assignment_id, share))
    await socket.say("progress", id="p", **progress_of(assignment_id, 1.5))
    await socket.say("heartbeat")

    error = await socket.until("error")
    assert (error["id"], error["data"]["code"]) == ("p", "invalid")
    await socket.until("heartbeat")
    assert not any(task.done() for task in busy)
    gate.set()
    await asyncio.gather(*busy)


async def test_of_progress_that_waited_the_newest_is_told_last_also_when_the_device_has_left(loop, settings):
    settings.QFLARE_PROGRESS_SECONDS = 0
    socket, assignment_id = await at_work()
    gate = threading.Event()
    busy = [asyncio.create_task(query(gate.wait, 30)) for _ in range(THREADS)]
    for share in (0.1, 0.2, 0.3):
        await socket.say("progress", **progress_of(assignment_id, share))
    await socket.say("heartbeat")
    await socket.until("heartbeat")

    leaving = asyncio.create_task(socket.leave())
    await eventually(lambda: not this_process().devices)
    gate.set()
    await leaving

    row = await asyncio.to_thread(lambda: Assignment.objects.get(pk=assignment_id))
    assert (row.state, row.progress) == (AssignmentState.TRAINING, 0.3)
    assert not [task for task in asyncio.all_tasks() if "progress" in task.get_name()]
    await asyncio.gather(*busy)


async def test_progress_that_the_server_fails_at_is_answered_so_and_the_next_is_taken(loop, caplog):
    socket, assignment_id = await at_work()
    await asyncio.to_thread(rename_table, "fl_assignment", "fl_away")
    try:
        await socket.say("progress", **progress_of(assignment_id, 0.1))
        assert (await socket.until("error"))["data"]["code"] == "internal"
    finally:
        await asyncio.to_thread(rename_table, "fl_away", "fl_assignment")
    assert "could not be handled" in caplog.text

    await socket.say("progress", **progress_of(assignment_id, 0.2))
    await socket.leave()

    row = await asyncio.to_thread(lambda: Assignment.objects.get(pk=assignment_id))
    assert (row.state, row.progress) == (AssignmentState.TRAINING, 0.2)


async def test_every_heartbeat_of_a_device_is_answered_and_renews_a_token_that_grows_old(loop, settings):
    device = await enrolled()
    socket = await connected_device(device)
    await socket.say("heartbeat")
    assert "token" not in (await socket.frame())["data"]

    settings.QFLARE_DEVICE_TOKEN_SECONDS = 10**6
    await socket.say("heartbeat")

    token = (await socket.frame())["data"]["token"]["token"]
    later = timezone.now() + timedelta(days=2)
    found = await asyncio.to_thread(lambda: device_of_token(token=token, now=later))
    assert found == device.device


async def test_a_device_that_falls_silent_is_ended(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 0.2
    device = await enrolled()

    socket = await connected_device(device)

    assert (await socket.closed())[0] == 4009


# ── presence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_leases_of_all_that_were_heard_from_are_renewed_in_one_go(loop, settings):
    settings.QFLARE_LEASE_SECONDS = 2.0
    sockets = [(device, await connected_device(device)) for device in [await enrolled(), await enrolled()]]
    before = [(await presence_of(device)).lease_until for device, _ in sockets]

    for _, socket in sockets:
        await socket.say("heartbeat")
        await socket.until("heartbeat")

    give_up = loop.time() + 30
    while not all(
        [(await presence_of(device)).lease_until > old for (device, _), old in zip(sockets, before, strict=True)]
    ):
        assert loop.time() < give_up
        await asyncio.sleep(0.05)


async def test_a_newer_connection_elsewhere_is_found_with_the_lease_when_the_layer_lost_the_news(loop, settings):
    settings.QFLARE_LEASE_SECONDS = 0.8
    device = await enrolled()
    socket = await connected_device(device)

    await asyncio.to_thread(lambda: PresenceLease.objects.update(connection_id="newer", instance="elsewhere"))

    assert (await socket.closed())[0] == 4504


async def test_a_device_whose_lease_was_swept_while_nobody_could_renew_it_is_online_again_when_heard(loop, settings):
    settings.QFLARE_LEASE_SECONDS = 0.8
    device = await enrolled()
    socket = await connected_device(device)
    assert await asyncio.to_thread(lambda: devices.expire_leases(now=timezone.now() + timedelta(days=1))) == 1

    await socket.say("heartbeat")
    give_up = loop.time() + 30
    while (lease := await presence_of(device)) is None:
        assert loop.time() < give_up
        await asyncio.sleep(0.05)

    assert lease.connection_id == socket.opening["welcome"][0]["connection_id"]
    presences = await asyncio.to_thread(
        lambda: [
            json.loads(data)["presence"]
            for data in Event.objects.filter(event="device_status").order_by("seq").values_list("data", flat=True)
        ]
    )
    assert presences[-3:] == ["online", "offline", "online"]


async def test_a_device_that_leaves_is_given_a_grace(loop):
    device = await enrolled()
    socket = await connected_device(device)

    await socket.leave()

    lease = await presence_of(device)
    assert lease.closed_at is not None
    assert lease.lease_until - lease.closed_at == timedelta(seconds=15)


async def test_the_newest_connection_of_a_device_wins_and_the_late_end_of_the_old_one_changes_nothing(loop):
    device = await enrolled()
    old = await connected_device(device)

    new = await connected_device(device)

    code, _ = await old.closed()
    assert code == 4504
    await old.leave()
    lease = await presence_of(device)
    assert lease.connection_id == new.opening["welcome"][0]["connection_id"]
    assert lease.closed_at is None


async def test_two_that_use_one_identity_are_told_of_and_both_ended_for_a_while(loop):
    device = await enrolled()
    sockets = [await connected_device(device)]
    for _ in range(3):
        sockets.append(await connected_device(device))
    assert [(await socket.closed())[0] for socket in sockets[:3]] == [4504] * 3

    last = await shake_hands(device)

    assert (await sockets[3].closed())[0] == 4013
    assert (await last.closed())[0] == 4013
    alarms = await asyncio.to_thread(
        lambda: list(Event.objects.filter(stream="system", event="error_notification").values_list("data", flat=True))
    )
    assert len(alarms) == 1
    assert '"code":"duplicate_identity"' in alarms[0]
    for socket in (sockets[3], last):
        await socket.leave()
    # Counting begins anew, so that it may come back.
    await connected_device(device)


@pytest.fixture
def deaf(monkeypatch):
    """A layer that brings nothing to anybody."""

    async def swallow(self, group, message):
        pass

    monkeypatch.setattr(MemoryChannelLayer, "group_send", swallow)


async def test_what_the_layer_does_not_tell_of_older_connections_and_pairs_the_leases_do(loop, deaf):
    device = await enrolled()
    sockets = [await connected_device(device) for _ in range(4)]
    await this_process().recheck()
    assert [(await socket.closed())[0] for socket in sockets[:3]] == [4504] * 3

    last = await shake_hands(device)
    await last.until("welcome")
    await this_process().recheck()

    for socket in (sockets[3], last):
        code, frames = await socket.closed()
        assert (code, frames[-1]["data"]["reason"]) == (4013, "more than one device connects with this identity")
        await socket.leave()
    await connected_device(device)


@pytest.mark.parametrize("move", ["suspend", "revoke"])
async def test_a_device_that_is_barred_is_ended_at_once(loop, move):
    device = await enrolled()
    socket = await connected_device(device)
    bar = getattr(devices, move)

    await asyncio.to_thread(lambda: bar(device=device.device, reason="lost", now=timezone.now(), by=None))

    code, frames = await socket.closed()
    assert code == 4505
    assert frames[-1]["data"]["reason"] == "lost"


async def test_a_barred_device_is_found_by_the_clock_when_the_layer_lost_the_news(loop, settings):
    settings.QFLARE_RECHECK_SECONDS = 0.2
    device = await enrolled()
    socket = await connected_device(device)

    await asyncio.to_thread(lambda: Device.objects.filter(pk=device.device.pk).update(state="revoked"))

    assert (await socket.closed())[0] == 4505


async def test_a_device_comes_online_once_and_goes_offline_once(loop):
    device = await enrolled()

    def seen():
        return [
            data
            for data in Event.objects.filter(stream=events.SYSTEM, event="device_status").values_list("data", flat=True)
            if '"presence":"online"' in data
        ]

    socket = await connected_device(device)
    await socket.leave()
    await (await connected_device(device)).leave()

    assert len(await asyncio.to_thread(seen)) == 1
    later = timezone.now() + timedelta(minutes=1)
    assert await asyncio.to_thread(lambda: devices.expire_leases(now=later)) == 1
    assert await asyncio.to_thread(lambda: devices.expire_leases(now=later)) == 0


async def test_a_handshake_that_was_never_finished_leaves_nothing(loop):
    device = await enrolled()
    socket = await Socket("/ws/clients").connect()
    await socket.say_text(hello_of(device))
    await socket.text()

    await socket.leave()

    await eventually(lambda: this_process().hub.members(f"device.{device.device.pk}") == [])
    assert await presence_of(device) is None
