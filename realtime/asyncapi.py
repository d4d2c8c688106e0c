"""The contract on the wire as an AsyncAPI 3 document, made from the structs, so that it cannot say otherwise."""

import inspect
from typing import Any

import msgspec

from edge.protocol import PROTOCOL, client, server
from edge.protocol.close_codes import MEANINGS, is_terminal
from realtime.groups import Kind

REFERENCE = "#/components/schemas/{name}"

PATHS = {
    Kind.DASHBOARD: "/ws/dashboard",
    Kind.CLIENTS: "/ws/clients",
    Kind.ADMIN: "/ws/admin",
    Kind.GENERAL: "/ws",
}
AUDIENCES = {
    Kind.DASHBOARD: "People with a role, by session; everybody where it is public. Runs, devices and errors.",
    Kind.CLIENTS: "Devices, by the ML-DSA-65 handshake. Their assignments, and the runs whose task they offer.",
    Kind.ADMIN: "Admins, by session. All that dashboards see, streams of devices on request, and commands.",
    Kind.GENERAL: "Anybody. Broadcasts to all, and runs that are marked public.",
}

_RUNS = (server.FlStatusUpdate, server.TrainingProgress, server.ModelAggregation, server.ErrorNotification)
_ALL = (
    server.Broadcast,
    server.Welcome,
    server.RecentEvents,
    server.Snapshot,
    server.Result,
    server.Error,
    server.Heartbeat,
    server.Bye,
)
SAID: dict[Kind, tuple[type[server.Payload], ...]] = {
    Kind.DASHBOARD: (*_RUNS, server.DeviceStatus, server.RunTrash, *_ALL),
    Kind.CLIENTS: (*_RUNS, server.Assignment, server.Cancel, server.Challenge, *_ALL),
    Kind.ADMIN: (*_RUNS, server.DeviceStatus, server.RunTrash, server.Assignment, server.Cancel, *_ALL),
    Kind.GENERAL: (*_RUNS, *_ALL),
}
"""What the server says on each type of connection."""

TICKS = (server.TrainingProgress, server.RecentEvents)
"""What also goes out as a tick: with a key and a number instead of a place in a stream."""

_EVERYBODY = (client.Hello, client.Heartbeat, client.Subscribe, client.Unsubscribe)
HEARD: dict[Kind, tuple[type[client.Message], ...]] = {
    Kind.DASHBOARD: _EVERYBODY,
    Kind.CLIENTS: (*_EVERYBODY, client.Auth, client.Ack, client.Progress),
    Kind.ADMIN: (*_EVERYBODY, client.Command),
    Kind.GENERAL: _EVERYBODY,
}
"""What the server takes on each type of connection."""


def document() -> dict[str, Any]:
    """Return the document, ready to be written as YAML or JSON."""
    structs = [*server.PAYLOADS.values(), *client.MESSAGES]
    # A client's heartbeat and the server's have one name, so only the generator knows what each is called.
    references, schemas = msgspec.json.schema_components(structs, ref_template=REFERENCE)
    found = dict(zip(structs, references, strict=True))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "QFLARE, live",
            "version": PROTOCOL.removeprefix("qflare.v"),
            "description": _description(),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "localhost:8000", "protocol": "ws"}},
        "channels": {kind.value: _channel(kind) for kind in Kind},
        "operations": dict(item for kind in Kind for item in _operations(kind)),
        "components": {
            "messages": {name: _message(name, struct, found[struct]) for name, struct in _messages().items()},
            "schemas": {name: schemas[name] for name in sorted(schemas)},
        },
    }


def _description() -> str:
    codes = "\n".join(
        f"- {code.value}: {meaning}; {'stay away' if is_terminal(code) else 'come back'}"
        for code, meaning in MEANINGS.items()
    )
    return (
        f"Subprotocol {PROTOCOL}. Each message is one JSON object in one text frame. See docs/protocol.md for what is "
        f"promised.\n\nClose codes:\n\n{codes}\n"
    )


def _channel(kind: Kind) -> dict[str, Any]:
    names = [*_names_said(kind), *[_name_heard(message) for message in HEARD[kind]]]
    return {
        "address": PATHS[kind],
        "description": f"{AUDIENCES[kind]} Also at /api{PATHS[kind]}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _operations(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    channel = {"$ref": f"#/channels/{kind.value}"}

    def references(names: list[str]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{kind.value}/messages/{name}"} for name in names]

    heard = [_name_heard(message) for message in HEARD[kind]]
    return [
        (f"tell_{kind.value}", {"action": "send", "channel": channel, "messages": references(_names_said(kind))}),
        (f"hear_{kind.value}", {"action": "receive", "channel": channel, "messages": references(heard)}),
    ]


def _names_said(kind: Kind) -> list[str]:
    return [name for payload in SAID[kind] for name in _names_of(payload)]


def _names_of(payload: type[server.Payload]) -> list[str]:
    return [payload.event, f"{payload.event}_tick"] if payload in TICKS else [payload.event]


def _name_heard(message: type[client.Message]) -> str:
    return f"client_{message.__struct_config__.tag}"


def _messages() -> dict[str, type[msgspec.Struct]]:
    said = {name: payload for payload in server.PAYLOADS.values() for name in _names_of(payload)}
    return {**said, **{_name_heard(message): message for message in client.MESSAGES}}


def _message(name: str, struct: type[msgspec.Struct], reference: dict[str, Any]) -> dict[str, Any]:
    payload = _envelope(name, struct, reference) if issubclass(struct, server.Payload) else reference
    return {"name": name, "summary": inspect.getdoc(struct), "payload": payload}


def _envelope(name: str, payload: type[server.Payload], data: dict[str, Any]) -> dict[str, Any]:
    text, number = {"type": "string"}, {"type": "integer", "minimum": 0}
    fields: dict[str, Any] = {"event": {"const": payload.event}, "data": data}
    if name.endswith("_tick"):
        fields |= {"timestamp": {"type": "string", "format": "date-time"}, "key": text, "number": number}
    elif payload in server.DURABLE:
        place = {"type": "integer", "minimum": 1}
        fields |= {"timestamp": {"type": "string", "format": "date-time"}, "stream": text, "seq": place}
    required = list(fields)
    if payload in (server.Result, server.Error):
        fields["id"] = text
    if "seq" in fields:
        fields["epoch"] = text
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
