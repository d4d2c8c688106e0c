"""What clients say: exactly these eight messages, each one JSON object with a `type` in one text frame."""

from typing import Any

import msgspec

from edge.protocol.server import Position


class Message(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"
):
    """A client's message; `id` is echoed in the reply."""

    id: str | None = None


class TaskOffer(msgspec.Struct, kw_only=True, frozen=True):
    """A task that a device can train: `digest` is over the names, shapes and dtypes of its model's weights."""

    task: str
    digest: str
    num_examples: int
    supports: list[str] = []
    """What its training loop can do beyond plain local training, such as `proximal`."""


class Hello(Message, kw_only=True, frozen=True, tag="hello"):
    """The first message of a device, and of a client that keeps heartbeats; devices fill in all fields."""

    protocol: str
    device_id: int | None = None
    client_nonce: str | None = None
    tasks: list[TaskOffer] = []
    edge_version: str = ""
    since: dict[str, Position] = {}
    """Where the client stands in each stream; what is missing is sent."""


class Auth(Message, kw_only=True, frozen=True, tag="auth"):
    """A device's half of the handshake: ML-DSA-65 over the transcript (see `handshake`), base64."""

    signature: str


class Heartbeat(Message, kw_only=True, frozen=True, tag="heartbeat"):
    """The client is there; a person's that has an `id` is answered by a `result`, to measure the way there and back."""


class Subscribe(Message, kw_only=True, frozen=True, tag="sub"):
    """Follow more streams, from the positions given, else from their newest events."""

    streams: list[str]
    since: dict[str, Position] = {}


class Unsubscribe(Message, kw_only=True, frozen=True, tag="unsub"):
    """Follow these streams no more."""

    streams: list[str]


class Ack(Message, kw_only=True, frozen=True, tag="ack"):
    """A device has taken notice of its own stream up to and with `seq`."""

    stream: str
    seq: int


class Progress(Message, kw_only=True, frozen=True, tag="progress"):
    """How far a device's training is; best effort, at most two a second."""

    assignment_id: int
    state: str
    """`training` or `uploading`."""
    progress: float
    local_epoch: int
    local_epochs: int
    loss: float | None = None


class Command(Message, kw_only=True, frozen=True, tag="cmd"):
    """A command of a person; `idem` makes sending it again harmless."""

    name: str
    args: dict[str, Any] = {}
    idem: str


ClientMessage = Hello | Auth | Heartbeat | Subscribe | Unsubscribe | Ack | Progress | Command

MESSAGES: tuple[type[Message], ...] = (Hello, Auth, Heartbeat, Subscribe, Unsubscribe, Ack, Progress, Command)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


def encode_message(message: Message) -> str:
    """Encode a client's message as the text of one frame."""
    return _encoder.encode(message).decode()


def decode_message(text: str | bytes) -> ClientMessage:
    """Decode and validate a client's message.

    Raises:
        msgspec.ValidationError: JSON, but none of the messages; the text says which field and why.
        msgspec.DecodeError: not JSON.
    """
    return _decoder.decode(text)
