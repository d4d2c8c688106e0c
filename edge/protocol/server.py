"""What the server says: every event and control frame, and the envelope that carries them.

An envelope is one JSON object in one text frame: `event` and `data` always; events add `timestamp`; durable events add
`stream` and `seq`; ticks a `key` and a rising `number`; replies the `id` they answer. Clients ignore what they do
not know.
"""

from datetime import UTC, datetime
from typing import ClassVar, Literal

import msgspec


class Payload(msgspec.Struct, kw_only=True, frozen=True):
    """The `data` of a frame; its class names the `event`."""

    event: ClassVar[str]


class Position(msgspec.Struct, kw_only=True, frozen=True):
    """A place in a stream: `seq` counts from 1 without holes; `epoch` changes when the history is another one."""

    epoch: str
    seq: int


class Spread(msgspec.Struct, kw_only=True, frozen=True):
    """How a metric spreads over the devices of a round; `mean` is weighted by num_examples, p10 and p90 are not."""

    mean: float | None
    p10: float | None
    p90: float | None


class FlStatusUpdate(Payload, kw_only=True, frozen=True):
    """The state of a run and its open or last round, as it is now: a state, never a change."""

    event: ClassVar[str] = "fl_status_update"
    run_id: int
    run_name: str
    task: str
    strategy: str
    state: str
    reason: str = ""
    """Why the run or round is in this state, or what it waits for ("1 of 2 devices online")."""
    rounds: int
    """How many rounds the run has in all."""
    round: int | None = None
    round_state: str | None = None
    cohort_size: int
    quorum: int
    selected: int = 0
    updates_received: int = 0
    updates_lost: int = 0
    started_at: datetime | None = None
    round_started_at: datetime | None = None
    deadline_at: datetime | None = None
    model_version: int | None = None
    best_version: int | None = None
    actions: list[str] = []
    """The moves that the state allows: start, pause, resume, extend_deadline, stop_after_round, stop_now."""


class DeviceTick(msgspec.Struct, kw_only=True, frozen=True):
    """How far one device is; of an assignment's ticks the one with the highest `number` counts."""

    assignment_id: int
    device_id: int
    device_name: str
    phase: str
    """State of the assignment: training or uploading."""
    progress: float
    """Share of the batches done, in [0, 1]."""
    local_epoch: int
    local_epochs: int
    loss: float | None = None
    number: int = 0


class TrainingProgress(Payload, kw_only=True, frozen=True):
    """One device's part of a round (durable, at a change of state), how a round goes, or what it has come to.

    Without an `assignment_id` it is of the whole round: a tick with the newest of the `devices` at work; a tick while
    updates come in, whose `updates_received` only rises; and a durable event when its deadline is extended
    (`deadline_extended`) and at its end (`round_completed`).
    """

    event: ClassVar[str] = "training_progress"
    run_id: int
    round: int
    phase: str
    """State of the assignment; of a whole round `training`, `deadline_extended` or `round_completed`."""
    assignment_id: int | None = None
    device_id: int | None = None
    device_name: str | None = None
    progress: float | None = None
    """Share of the batches done, in [0, 1]."""
    local_epoch: int | None = None
    local_epochs: int | None = None
    loss: float | None = None
    metrics: dict[str, float | None] = {}
    """Of this device, or at `round_completed` of the global model on the server's test split."""
    device_metrics: dict[str, Spread] = {}
    num_examples: int | None = None
    updates_received: int | None = None
    duration_seconds: float | None = None
    """How long the round took; at `deadline_extended` by how much its deadline was extended."""
    reason: str = ""
    devices: list[DeviceTick] = []
    """In a tick: devices that were heard from within the last seconds, each with its newest."""


class ModelAggregation(Payload, kw_only=True, frozen=True):
    """The making of a global model version: started, progress, completed (it is published), failed."""

    event: ClassVar[str] = "model_aggregation"
    run_id: int
    task: str
    round: int
    phase: Literal["started", "progress", "completed", "failed"]
    strategy: str
    updates_received: int = 0
    updates_planned: int = 0
    updates_rejected: int = 0
    progress: float | None = None
    version: int | None = None
    digest: str | None = None
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the weights."""
    task_digest: str = ""
    size_bytes: int | None = None
    weights_url: str | None = None
    metrics: dict[str, float | None] | None = None
    """Server evaluation; None where the server has no data of the task."""
    device_metrics: dict[str, Spread] = {}
    is_best: bool = False
    duration_seconds: float | None = None
    reason: str = ""


class DeviceStatus(Payload, kw_only=True, frozen=True):
    """A device's state, presence and activity, as they are now."""

    event: ClassVar[str] = "device_status"
    device_id: int
    name: str
    state: str
    presence: Literal["online", "offline"]
    activity: str = "idle"
    reason: str = ""
    last_heard_at: datetime | None = None
    edge_version: str = ""
    tags: list[str] = []
    """Words that people gave it, to find it again."""
    tasks: list[str] = []
    num_examples: dict[str, int] = {}
    run_id: int | None = None
    round: int | None = None


class ErrorNotification(Payload, kw_only=True, frozen=True):
    """Something went wrong that a person should know of: what, why, what to do.

    `count` says for how many it stands: equal ones that followed one within seconds are told together.
    """

    event: ClassVar[str] = "error_notification"
    code: str
    severity: Literal["info", "warning", "error"] = "error"
    title: str
    detail: str = ""
    action: str = ""
    run_id: int | None = None
    round: int | None = None
    device_id: int | None = None
    count: int = 1


class RunTrash(Payload, kw_only=True, frozen=True):
    """A run was moved to the trash, where its stream is nobody's any more, or restored from there."""

    event: ClassVar[str] = "run_trash"
    run_id: int
    run_name: str
    state: Literal["in_trash", "restored"]


class Broadcast(Payload, kw_only=True, frozen=True):
    """A message of an admin to the people and devices of some connection types."""

    event: ClassVar[str] = "broadcast"
    message: str
    level: Literal["info", "warning", "error"] = "info"
    sender: str
    audiences: list[str]
    expires_at: datetime | None = None


class TrainingPlan(msgspec.Struct, kw_only=True, frozen=True):
    """How a device trains in one round; `seed` is derived from run, round and cohort index."""

    local_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.0
    proximal_mu: float = 0.0
    seed: int


class Assignment(Payload, kw_only=True, frozen=True):
    """One device's part of a round: which weights to start from, how to train, where to send the update."""

    event: ClassVar[str] = "assignment"
    assignment_id: int
    run_id: int
    run_name: str
    round: int
    task: str
    task_digest: str
    base_version: int
    base_digest: str
    weights_url: str
    update_url: str
    training: TrainingPlan
    deadline_at: datetime
    """As it was when this was said. It may be extended, so a device works until it is told to stop (`cancel`)."""
    max_update_norm: float | None = None


class Cancel(Payload, kw_only=True, frozen=True):
    """An assignment is over; the device stops within one batch."""

    event: ClassVar[str] = "cancel"
    assignment_id: int
    run_id: int
    round: int
    reason: str


class AccessToken(msgspec.Struct, kw_only=True, frozen=True):
    """A device's bearer token for HTTP: signed by the server, short-lived, renewed with the heartbeat."""

    token: str
    expires_at: datetime


class Limits(msgspec.Struct, kw_only=True, frozen=True):
    """What the server takes from this connection."""

    message_bytes: int
    messages_per_second: float
    burst: int


class Challenge(Payload, kw_only=True, frozen=True):
    """The server's half of a device's handshake; the signature covers `hello` and this (see `handshake`)."""

    event: ClassVar[str] = "challenge"
    connection_id: str
    server_nonce: str
    fingerprint: str
    expires_in_s: int
    signature: str


class Welcome(Payload, kw_only=True, frozen=True):
    """The connection is open: who it is, what it sees, and where each stream stands."""

    event: ClassVar[str] = "welcome"
    protocol: str
    connection_id: str
    instance: str
    time: datetime
    heartbeat_seconds: float
    limits: Limits
    streams: dict[str, Position]
    user: str | None = None
    roles: list[str] = []
    device_id: int | None = None
    token: AccessToken | None = None


class LoggedEvent(msgspec.Struct, kw_only=True, frozen=True):
    """A durable event as the log keeps it: the frame that was sent, less its stream."""

    seq: int
    event: str
    data: msgspec.Raw
    timestamp: str


class RecentEvents(Payload, kw_only=True, frozen=True):
    """Events of one stream out of the log: those missed (`recovered`), or the newest ones, with the reason why."""

    event: ClassVar[str] = "recent_events"
    stream: str
    epoch: str
    recovered: bool
    reason: Literal["", "fresh", "epoch", "too_old", "too_far"] = ""
    events: list[LoggedEvent]
    since: int
    """The seq before the first event of this frame."""
    to: int
    """The seq that this frame reaches; the stream goes on with to + 1."""
    more: bool = False
    """Another frame of this stream follows."""


class Snapshot(Payload, kw_only=True, frozen=True):
    """What is true now, read in one transaction together with the position of each stream."""

    event: ClassVar[str] = "snapshot"
    streams: dict[str, Position]
    runs: list[FlStatusUpdate] = []
    progress: list[TrainingProgress] = []
    models: list[ModelAggregation] = []
    """The newest published version of each run."""
    devices: list[DeviceStatus] = []
    assignment: Assignment | None = None
    """For a device: its open assignment."""
    more: bool = False


class Result(Payload, kw_only=True, frozen=True):
    """A command was done; the envelope's `id` says which."""

    event: ClassVar[str] = "result"
    ok: bool = True
    result: dict[str, int | float | str | bool | None] = {}


class Error(Payload, kw_only=True, frozen=True):
    """A client's message was refused: what, why, what to do; the envelope's `id` says which where it is known."""

    event: ClassVar[str] = "error"
    code: str
    message: str
    retry_after: float | None = None


class Heartbeat(Payload, kw_only=True, frozen=True):
    """The server is there; `s` holds the heads of the streams that changed since the last one."""

    event: ClassVar[str] = "heartbeat"
    s: dict[str, int] = {}
    token: AccessToken | msgspec.UnsetType = msgspec.UNSET


class Bye(Payload, kw_only=True, frozen=True):
    """The connection is about to be closed; close reasons do not get through every server, this does."""

    event: ClassVar[str] = "bye"
    code: int
    reason: str
    retry_after_ms: int | None = None


DURABLE: tuple[type[Payload], ...] = (
    FlStatusUpdate,
    TrainingProgress,
    ModelAggregation,
    DeviceStatus,
    ErrorNotification,
    RunTrash,
    Broadcast,
    Assignment,
    Cancel,
)
"""What the event log may hold; TrainingProgress also goes out as a tick."""

CONTROL: tuple[type[Payload], ...] = (
    Challenge,
    Welcome,
    RecentEvents,
    Snapshot,
    Result,
    Error,
    Heartbeat,
    Bye,
)

PAYLOADS: dict[str, type[Payload]] = {payload.event: payload for payload in DURABLE + CONTROL}


class Frame(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The envelope, with its payload still encoded."""

    event: str
    data: msgspec.Raw
    timestamp: str | None = None
    stream: str | None = None
    seq: int | None = None
    epoch: str | None = None
    key: str | None = None
    number: int | None = None
    id: str | None = None


_encoder = msgspec.json.Encoder()
_frame_decoder = msgspec.json.Decoder(Frame)
_payload_decoders = {event: msgspec.json.Decoder(payload) for event, payload in PAYLOADS.items()}


def format_timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_payload(payload: Payload) -> bytes:
    """Encode a payload as JSON; numbers that are not finite become null."""
    return _encoder.encode(payload)


def decode_payload(event: str, data: bytes | str | msgspec.Raw) -> Payload:
    """Decode the payload of a known event.

    Raises:
        KeyError: the event is unknown.
        msgspec.ValidationError: a field is missing or of the wrong type.
    """
    return _payload_decoders[event].decode(data)


def encode_frame(
    event: str,
    data: bytes | Payload,
    *,
    timestamp: datetime | str | None = None,
    stream: str | None = None,
    seq: int | None = None,
    epoch: str | None = None,
    key: str | None = None,
    number: int | None = None,
    id: str | None = None,
) -> str:
    """Encode one frame, ready to be sent as text.

    Args:
        event: name of the event.
        data: the payload, or its JSON.
        timestamp: server clock at commit (durable) or at sending (ticks).
        stream, seq: position of a durable event.
        epoch: of the stream; its first event alone carries it, since whoever hears that one was told of none before.
        key, number: what a tick replaces, and its rising number.
        id: the client's message that this answers.
    """
    raw = msgspec.Raw(encode_payload(data) if isinstance(data, Payload) else data)
    moment = format_timestamp(timestamp) if isinstance(timestamp, datetime) else timestamp
    first = epoch if seq == 1 else None
    frame = Frame(
        event=event,
        data=raw,
        timestamp=moment,
        stream=stream,
        seq=seq,
        epoch=first,
        key=key,
        number=number,
        id=id,
    )
    return _encoder.encode(frame).decode()


def decode_frame(text: str | bytes) -> Frame:
    """Decode an envelope and leave its payload encoded; `decode_payload` does the rest.

    Raises:
        msgspec.DecodeError: the text is not an envelope.
    """
    return _frame_decoder.decode(text)
