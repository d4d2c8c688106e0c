"""The document is true: it says what the structs say now, and every frame and message that is exchanged fits it."""

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest
from django.utils import timezone

from edge.protocol import client, server
from fl import devices, runs, trash
from realtime.asyncapi import SAID, document
from realtime.groups import Kind
from realtime.management.commands.asyncapi import as_yaml
from tests.builders import participant, person, started_run, step
from tests.realtime.acts import cookie_of, tick_now
from tests.realtime.devices import answer_to, hello_of
from tests.realtime.sockets import Socket

DOCUMENT = document()
FILE = Path(__file__).parent.parent.parent / "docs" / "asyncapi.yaml"


def validator_of(name):
    schema = {**DOCUMENT["components"]["messages"][name]["payload"], "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


def name_of(frame):
    return f"{frame['event']}_tick" if "key" in frame else frame["event"]


def test_the_file_is_what_the_structs_say():
    assert FILE.read_text(encoding="utf-8") == as_yaml(), "run: manage.py asyncapi"


def test_every_struct_and_nothing_else_is_in_it():
    said = {payload.event for payloads in SAID.values() for payload in payloads}

    assert said == set(server.PAYLOADS)
    messages = set(DOCUMENT["components"]["messages"])
    assert {name for name in messages if not name.startswith("client_")} >= said
    heard = {f"client_{message.__struct_config__.tag}" for message in client.MESSAGES}
    assert {name for name in messages if name.startswith("client_")} == heard


def test_every_reference_leads_somewhere():
    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(DOCUMENT):
        target = DOCUMENT
        for step_ in reference.removeprefix("#/").split("/"):
            target = target[step_]


@pytest.mark.parametrize(
    "frame",
    [
        {"event": "fl_status_update", "data": {}},
        {"event": "heartbeat", "data": {"s": {"system": "x"}}},
        {"event": "bye", "data": {"code": 4001, "reason": "x"}, "surprise": 1},
    ],
)
def test_a_frame_that_is_not_ours_does_not_fit(frame):
    assert list(validator_of(name_of(frame)).iter_errors(frame))


def test_messages_of_clients_fit():
    position = server.Position(epoch="e", seq=1)
    messages = [
        client.Hello(protocol="qflare.v1", device_id=1, client_nonce="x", since={"system": position}),
        client.Auth(signature="x"),
        client.Heartbeat(id="1"),
        client.Subscribe(streams=["system"], since={"system": position}),
        client.Unsubscribe(streams=["system"]),
        client.Ack(stream="device:1", seq=1),
        client.Progress(assignment_id=1, state="training", progress=0.5, local_epoch=1, local_epochs=2, loss=0.1),
        client.Command(name="admin.broadcast", args={"message": "x"}, idem="k"),
    ]

    assert {type(message) for message in messages} == set(client.MESSAGES)
    for message in messages:
        name = f"client_{type(message).__struct_config__.tag}"
        validator_of(name).validate(json.loads(client.encode_message(message)))


async def read(socket, frames, wanted):
    """Read frames until all these kinds have come, on this or another socket."""
    while wanted - {name_of(frame) for _, frame in frames}:
        frames.append((socket.kind, await socket.frame()))


async def test_every_kind_of_frame_that_really_goes_out_fits(loop, settings):
    settings.QFLARE_HEARTBEAT_SECONDS = 2  # the device says nothing during a round, however busy the machine is
    settings.QFLARE_LEASE_SECONDS = 600
    frames = []
    cookie = await asyncio.to_thread(lambda: cookie_of(person("ada", "admin")))
    admin = await Socket("/ws/admin", cookie=cookie).connect()
    admin.kind = Kind.ADMIN

    device = await asyncio.to_thread(lambda: participant(now=timezone.now()))
    handshake = await Socket("/ws/clients").connect()
    handshake.kind = Kind.CLIENTS
    hello = hello_of(device)
    await handshake.say_text(hello)
    challenge = await handshake.text()
    frames.append((Kind.CLIENTS, json.loads(challenge)))
    await handshake.say_text(answer_to(challenge, hello, device.key))
    await read(handshake, frames, {"welcome", "recent_events", "snapshot"})

    def a_round():
        run = started_run(now=timezone.now(), cohort_size=1, quorum=1, rounds=2)
        step(run, timezone.now())
        device.send(now=timezone.now())
        while not device_has_another_assignment():
            step(run, timezone.now())
        return run

    def device_has_another_assignment():
        return device.assignment().round.number == 2 and device.assignment().state == "assigned"

    await asyncio.to_thread(a_round)
    await asyncio.to_thread(tick_now, "progress:1")
    await admin.say(
        "cmd", id="1", name="admin.broadcast", args={"message": "x", "audiences": ["admin", "clients"]}, idem="1"
    )
    await admin.say("nonsense")
    await handshake.say("heartbeat")
    own = {"assignment", "model_aggregation", "fl_status_update", "training_progress", "broadcast", "heartbeat"}
    await read(handshake, frames, own)
    await read(admin, frames, {"device_status", "training_progress_tick", "result", "error", "heartbeat"})

    await asyncio.to_thread(lambda: devices.suspend(device=device.device, reason="x", now=timezone.now(), by=None))
    await read(handshake, frames, {"bye"})
    await asyncio.to_thread(_note_an_error)
    await read(admin, frames, {"error_notification"})
    await admin.say("sub", streams=[device.device.stream])
    await read(admin, frames, {"result"})

    await asyncio.to_thread(_move_a_run_to_the_trash)
    await read(admin, frames, {"run_trash"})

    for kind, frame in frames:
        validator_of(name_of(frame)).validate(frame)
        assert name_of(frame) in DOCUMENT["channels"][kind]["messages"], f"{name_of(frame)} on {kind}"
    # `cancel` goes out in the same moment in which a suspended device is closed, so it may not reach its socket.
    missing = set(server.PAYLOADS) - {frame["event"] for _, frame in frames}
    assert missing <= {"cancel"}
    await asyncio.to_thread(_check_cancel)


def _move_a_run_to_the_trash():
    run = runs.stop_run(run=started_run(now=timezone.now()), now=timezone.now())
    trash.move_to_trash(run=run, now=timezone.now())


def _note_an_error():
    from fl.broadcasts import broadcast_error_notification

    broadcast_error_notification("test", {"title": "something"})


def _check_cancel():
    from fl.models import Event

    event = Event.objects.filter(event="cancel").first()
    frame = server.encode_frame(
        event.event, event.data.encode(), timestamp=event.timestamp, stream=event.stream_id, seq=event.seq
    )
    validator_of("cancel").validate(json.loads(frame))
