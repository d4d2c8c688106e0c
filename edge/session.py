"""What a device says and hears on its socket, without the socket: frames in, actions out.

One device's connection (a thread) and a fleet's (one loop for all) drive the same object, so the protocol is written
once. A session outlives its connections: it remembers where each stream stands, and `open` begins the next connection.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

import edge
from edge.identity import AUTH_CONTEXT, CHALLENGE_CONTEXT, BadSignature, SigningKey, verify
from edge.notes import Level
from edge.positions import ENDED_RUN_STATES, MOST_POSITIONS, without_ended
from edge.protocol import PROTOCOL, client, handshake, server
from edge.store import Account


@dataclass(frozen=True)
class Send:
    """Send this text as one frame."""

    text: str


@dataclass(frozen=True)
class HangUp:
    """Close the connection and come back."""

    reason: str


@dataclass(frozen=True)
class Greeting:
    """The device says hello: what the server tells on this connection, it reads after this."""


@dataclass(frozen=True)
class Welcomed:
    """The handshake is done: the bearer token, and how often to send a heartbeat."""

    token: str
    heartbeat_seconds: float
    reconnected: bool


@dataclass(frozen=True)
class TokenRenewed:
    """A newer bearer token."""

    token: str


@dataclass(frozen=True)
class Reconciled:
    """What the server holds to be this device's open assignment: the truth, whatever was heard before."""

    assignment: server.Assignment | None


@dataclass(frozen=True)
class Assigned:
    """A new assignment."""

    assignment: server.Assignment


@dataclass(frozen=True)
class Cancelled:
    """An assignment is over."""

    assignment_id: int
    reason: str


@dataclass(frozen=True)
class ModelPublished:
    """A run has a new global model."""

    model: server.ModelAggregation


@dataclass(frozen=True)
class Noticed:
    """Something that the person at the device should read."""

    text: str
    level: Level


Heard = Greeting | Welcomed | TokenRenewed | Reconciled | Assigned | Cancelled | ModelPublished | Noticed
"""What the device itself must know of."""

Action = Send | HangUp | Heard
"""What is to be done about a frame; the first two are the connection's own affair."""


class Session:
    """One device's side of the protocol.

    Attributes:
        welcomed: the server has accepted this connection.
        farewell: the server's `bye` on this connection, if one came.
    """

    def __init__(self, account: Account, key: SigningKey, offers: Sequence[client.TaskOffer]) -> None:
        self._account = account
        self._key = key
        self._offers = list(offers)
        self._own_stream = f"device:{account.device_id}"
        self._epochs: dict[str, str] = {}
        self._seqs: dict[str, int] = {}
        self._ended: dict[str, None] = {}
        self._connections = 0
        self._begin()

    def _begin(self) -> None:
        self.welcomed = False
        self.farewell: server.Bye | None = None
        self._hello = ""
        self._server_is_proven = False
        self._snapshot_is_complete = False
        self._open_assignment: server.Assignment | None = None
        self._unanswered_heartbeats = 0
        self._own_head_told = 0

    def open(self) -> list[Action]:
        """Begin a new connection: the device speaks first."""
        self._begin()
        hello = client.Hello(
            protocol=PROTOCOL,
            device_id=self._account.device_id,
            client_nonce=base64.b64encode(secrets.token_bytes(32)).decode(),
            tasks=self._offers,
            edge_version=edge.__version__,
            since=self._since(),
        )
        self._hello = client.encode_message(hello)
        return [Greeting(), Send(self._hello)]

    def _since(self) -> dict[str, server.Position]:
        """Forget where this device stands in what it need not or cannot say, and return the rest."""
        known = {stream: seq for stream, seq in self._seqs.items() if stream in self._epochs}
        # Broadcasts and assignments first. Of more open runs than one may say the last to begin are left out: the
        # snapshot tells the models of the newest.
        named = sorted(without_ended(known, self._ended), key=_is_of_run)[:MOST_POSITIONS]
        self._seqs = {stream: known[stream] for stream in named}
        self._epochs = {stream: self._epochs[stream] for stream in named}
        self._ended = {stream: None for stream in self._ended if stream in self._seqs}
        return {stream: server.Position(epoch=self._epochs[stream], seq=seq) for stream, seq in self._seqs.items()}

    def heartbeat(self) -> list[Action]:
        """Show that the device is there; the server answers each, so two without an answer mean a dead connection."""
        if self._unanswered_heartbeats >= 2:
            return [HangUp("the server no longer answers heartbeats")]
        self._unanswered_heartbeats += 1
        return [Send(client.encode_message(client.Heartbeat()))]

    def receive(self, text: str | bytes) -> list[Action]:
        """Take one frame; frames of unknown events are passed over, as the protocol asks."""
        try:
            frame = server.decode_frame(text)
            if frame.event not in server.PAYLOADS:
                return []
            payload = server.decode_payload(frame.event, frame.data)
        except msgspec.DecodeError as error:
            return [_unreadable(error)]
        match payload:
            case server.Challenge():
                return self._answer_challenge(payload, text if isinstance(text, str) else text.decode())
            case server.Bye():
                self.farewell = payload
                return []
            case server.Error():
                return [Noticed(f"The server refused a message: {payload.message} ({payload.code})", "warning")]
            case server.Welcome():
                return self._enter(payload)
        # Before the welcome nothing proves that this is the server.
        return self._hear(frame, payload) if self.welcomed else []

    def _answer_challenge(self, challenge: server.Challenge, frame: str) -> list[Action]:
        try:
            signature = base64.b64decode(challenge.signature, validate=True)
            message = handshake.challenge_message(self._hello, challenge)
            verify(self._account.server_key, signature, message, CHALLENGE_CONTEXT)
        except (ValueError, BadSignature):
            return [HangUp("whoever answers there does not hold the server's key that this device has pinned")]
        self._server_is_proven = True
        proof = self._key.sign(handshake.transcript(self._hello, frame), AUTH_CONTEXT)
        return [Send(client.encode_message(client.Auth(signature=base64.b64encode(proof).decode())))]

    def _enter(self, welcome: server.Welcome) -> list[Action]:
        if not self._server_is_proven or welcome.token is None:
            return [HangUp("the server welcomed this device without proving its key, or without a token")]
        for stream, head in welcome.streams.items():
            self._learn_epoch(stream, head.epoch)
        self.welcomed = True
        self._connections += 1
        return [Welcomed(welcome.token.token, welcome.heartbeat_seconds, self._connections > 1)]

    def _hear(self, frame: server.Frame, payload: server.Payload) -> list[Action]:
        match payload:
            case server.Heartbeat():
                return self._hear_heartbeat(payload)
            case server.Snapshot():
                return self._hear_snapshot(payload)
            case server.RecentEvents():
                return self._catch_up(payload)
        if frame.stream is None or frame.seq is None:
            return _actions_for(payload)
        last = self._seqs.get(frame.stream)
        if last is not None and frame.seq <= last:
            return []
        if frame.stream == self._own_stream and last is not None and frame.seq > last + 1:
            return [HangUp(f"events {last + 1} to {frame.seq - 1} of this device's stream did not come")]
        self._seqs[frame.stream] = frame.seq
        self._note_end(frame.stream, payload)
        return [*_actions_for(payload), *self._acknowledge(frame.stream)]

    def _hear_heartbeat(self, heartbeat: server.Heartbeat) -> list[Action]:
        self._unanswered_heartbeats = 0
        # A head may be told while its event is still on the way, so only the one told before this must have come.
        missing = self._own_head_told > self._seqs.get(self._own_stream, self._own_head_told)
        self._own_head_told = heartbeat.s.get(self._own_stream, self._own_head_told)
        actions: list[Action] = []
        if isinstance(heartbeat.token, server.AccessToken):
            actions.append(TokenRenewed(heartbeat.token.token))
        if missing:
            actions.append(HangUp("the last event of this device's stream did not come"))
        return actions

    def _hear_snapshot(self, snapshot: server.Snapshot) -> list[Action]:
        for stream, position in snapshot.streams.items():
            self._learn_epoch(stream, position.epoch)
            # The first of a connection decides, downwards too: the server may have been restored from an older copy.
            known = self._seqs.get(stream, 0) if self._snapshot_is_complete else 0
            self._seqs[stream] = max(position.seq, known)
        self._open_assignment = snapshot.assignment or self._open_assignment
        actions: list[Action] = [ModelPublished(model) for model in snapshot.models]
        if snapshot.more:
            return actions
        assignment, self._open_assignment = self._open_assignment, None
        self._snapshot_is_complete = True
        # The assignment comes after the models: its weights are then already on their way.
        return [*actions, Reconciled(assignment), *self._acknowledge(self._own_stream)]

    def _catch_up(self, recent: server.RecentEvents) -> list[Action]:
        """Take events out of the log; unless they are exactly those missed, only their position counts."""
        self._learn_epoch(recent.stream, recent.epoch)
        last = self._seqs.get(recent.stream, recent.since)
        actions: list[Action] = []
        for event in recent.events if recent.recovered else []:
            if event.seq <= last or event.event not in server.PAYLOADS:
                continue
            try:
                payload = server.decode_payload(event.event, event.data)
            except msgspec.DecodeError as error:
                actions.append(_unreadable(error))
                continue
            self._note_end(recent.stream, payload)
            found = _actions_for(payload)
            # The snapshot tells where old assignments led; following them again would only waste work.
            wanted = [found_ for found_ in found if self._snapshot_is_complete or not _is_about_assignments(found_)]
            actions.extend(wanted)
        # What cannot be recovered is the server's to say, be it less than this device has seen.
        self._seqs[recent.stream] = max(last, recent.to) if recent.recovered else recent.to
        return [*actions, *self._acknowledge(recent.stream)]

    def _acknowledge(self, stream: str) -> list[Action]:
        if stream != self._own_stream or stream not in self._seqs:
            return []
        return [Send(client.encode_message(client.Ack(stream=stream, seq=self._seqs[stream])))]

    def _note_end(self, stream: str, payload: server.Payload) -> None:
        if isinstance(payload, server.FlStatusUpdate) and payload.state in ENDED_RUN_STATES:
            self._ended[stream] = None

    def _learn_epoch(self, stream: str, epoch: str) -> None:
        if self._epochs.get(stream) != epoch:
            # Another history: the numbers of the old one mean nothing in it.
            self._epochs[stream] = epoch
            self._seqs.pop(stream, None)
            self._ended.pop(stream, None)


def _actions_for(payload: server.Payload) -> list[Action]:
    match payload:
        case server.Assignment():
            return [Assigned(payload)]
        case server.Cancel():
            return [Cancelled(payload.assignment_id, payload.reason)]
        case server.ModelAggregation(phase="completed"):
            return [ModelPublished(payload)]
        case server.Broadcast():
            return [Noticed(f"{payload.sender}: {payload.message}", payload.level)]
    return []


def _unreadable(error: msgspec.DecodeError) -> Noticed:
    return Noticed(f"A frame of the server could not be read: {error}", "error")


def _is_of_run(stream: str) -> bool:
    return stream.startswith("run:")


def _is_about_assignments(action: Action) -> bool:
    return isinstance(action, Assigned | Cancelled)
