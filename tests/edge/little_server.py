"""A server of a few hundred lines that speaks the true protocol with real keys, and can be told to misbehave."""

import asyncio
import base64
import itertools
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import uvicorn

from edge.identity import (
    ALGORITHM,
    AUTH_CONTEXT,
    CHALLENGE_CONTEXT,
    ENROLL_CONTEXT,
    RECEIPT_CONTEXT,
    UPDATE_CONTEXT,
    BadSignature,
    SigningKey,
    fingerprint_of,
    verify,
)
from edge.protocol import PROTOCOL, client, handshake, server
from edge.protocol.enrollment import TokenText
from edge.protocol.http import (
    EnrollmentReceipt,
    EnrollmentRequest,
    Problem,
    ProblemBody,
    ServerIdentity,
    UpdateManifest,
    UpdateReceipt,
)
from edge.tasks import find_task, initial_weights, task_digest
from edge.weights import weights_digest
from edge.wire import encode

PATIENCE_SECONDS = 60
PLAN = server.TrainingPlan(local_epochs=1, batch_size=16, learning_rate=0.05, seed=7)


@dataclass
class Answer:
    """What the server says to an HTTP request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class KnownDevice:
    """A device that has enrolled, with its stream and its socket."""

    id: int
    name: str
    public_key: bytes
    events: list = field(default_factory=list)
    assignment: server.Assignment | None = None
    frames: asyncio.Queue | None = None
    hellos: list = field(default_factory=list)
    heard: list = field(default_factory=list)


class Uvicorn(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config):
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.ready.set()


class LittleServer:
    """Starts on a free port and can be stopped and started again on it, with all it knows.

    What it can be told to do wrong: `refuse_update` (answers uploads with a refusal), `busy_uploads` (answers so many
    with 503 first), `expire_tokens` (takes no token that was issued before), `hold_uploads` (leaves uploads unanswered
    until the event is set), `busy_downloads` and `hold_downloads` (the same for weights), `hold_welcome` (says
    late what was true when it was asked), `damage_weights`, `forge_challenge`, `forge_receipt`, `closing` (closes
    sockets at once).
    """

    def __init__(self):
        self.key = SigningKey.generate()
        self.changed = threading.Condition()
        self.devices = {}
        self.tokens = {}
        self.used = {}
        self.issued = set()
        self.weights = {}
        self.models = {}
        self.updates = []
        self.failures = []
        self.requests = []
        self.epoch = secrets.token_hex(4)
        self.state_after_enrolment = "active"
        self.heartbeat_seconds = 60.0
        self.refuse_update = None
        self.busy_uploads = 0
        self.hold_welcome = None
        self.busy_downloads = 0
        self.hold_downloads = None
        self.hold_uploads = None
        self.late = False
        self.damage_weights = False
        self.forge_challenge = False
        self.forge_receipt = False
        self.closing = None
        self.port = 0
        self._numbers = itertools.count(1)
        self._assignments = itertools.count(1)
        self.start()

    # What a test does with it.

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        config = uvicorn.Config(
            self._application,
            host="127.0.0.1",
            port=self.port,
            ws="websockets-sansio",
            interface="asgi3",
            lifespan="off",
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = Uvicorn(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._uvicorn.ready.wait(PATIENCE_SECONDS)
        self.port = self._uvicorn.servers[0].sockets[0].getsockname()[1]

    def stop(self):
        """End as a process that is stopped does: sockets closed with 4001."""
        self.close_sockets(4001)
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def token(self):
        text = TokenText(id=secrets.token_hex(4), secret=secrets.token_hex(16), fingerprint=self.key.fingerprint)
        self.tokens[text.id] = text.secret
        return str(text)

    def add_weights(self, task="linear", seed=1):
        weights = initial_weights(find_task(task), seed)
        digest = weights_digest(weights)
        self.weights[digest] = encode(weights)
        return digest

    def assign(self, device, base_digest, *, task="linear", round_number=1, plan=PLAN, task_digest_text=None):
        number = next(self._assignments)
        assignment = server.Assignment(
            assignment_id=number,
            run_id=1,
            run_name="first",
            round=round_number,
            task=task,
            task_digest=task_digest_text or task_digest(find_task(task)),
            base_version=round_number - 1,
            base_digest=base_digest,
            weights_url=f"/api/v1/weights/{base_digest}/",
            update_url=f"/api/v1/assignments/{number}/update/",
            training=plan,
            deadline_at=datetime.now(UTC) + timedelta(minutes=5),
        )
        with self.changed:
            self.devices[device].assignment = assignment
        self.say(device, assignment)
        return assignment

    def cancel(self, device, reason="stopped by a person"):
        with self.changed:
            assignment, self.devices[device].assignment = self.devices[device].assignment, None
        cancel = server.Cancel(assignment_id=assignment.assignment_id, run_id=1, round=assignment.round, reason=reason)
        self.say(device, cancel)

    def publish(self, digest, *, version=1, task="linear", run=1):
        model = server.ModelAggregation(
            run_id=run,
            task=task,
            round=version,
            phase="completed",
            strategy="fedavg",
            version=version,
            digest=digest,
            task_digest=task_digest(find_task(task)),
            weights_url=f"/api/v1/weights/{digest}/",
        )
        self.models[run] = model
        for device in list(self.devices):
            self._send(device, server.encode_frame(model.event, model, timestamp=datetime.now(UTC)))

    def say(self, device, payload, *, skip=0):
        """Send a durable event of the device's own stream; `skip` leaves a hole before it."""
        known = self.devices[device]
        with self.changed:
            known.events.extend([None] * skip)
            known.events.append(payload)
            seq = len(known.events)
        frame = server.encode_frame(
            payload.event, payload, timestamp=datetime.now(UTC), stream=f"device:{device}", seq=seq
        )
        self._send(device, frame)

    def whisper(self, device, payload):
        """Send a control frame."""
        self._send(device, server.encode_frame(payload.event, payload))

    def close_socket(self, device, code, bye=None):
        self._send(device, (code, bye))

    def close_sockets(self, code, bye=None):
        for device in list(self.devices):
            self.close_socket(device, code, bye)

    def expire_tokens(self):
        self.issued.clear()

    def is_connected(self, device=1):
        return device in self.devices and self.devices[device].frames is not None

    def wait_until(self, claim):
        with self.changed:
            assert self.changed.wait_for(claim, PATIENCE_SECONDS), "it did not come true"

    def wait_connected(self, device=1):
        self.wait_until(lambda: self.is_connected(device))

    def _run(self):
        asyncio.run(self._uvicorn.serve())

    def _send(self, device, frame):
        frames = self.devices[device].frames
        if frames is not None:
            self._loop.call_soon_threadsafe(frames.put_nowait, frame)

    def _note(self, collection, item):
        with self.changed:
            collection.append(item)
            self.changed.notify_all()

    # HTTP.

    async def _application(self, scope, receive, send):
        self._loop = asyncio.get_running_loop()
        if scope["type"] == "websocket":
            await self._converse(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        self._note(self.requests, f"{scope['method']} {scope['path']}")
        answer = await self._answer(scope["method"], scope["path"], headers, body)
        named = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        named.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": named})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, method, path, headers, body):
        parts = path.strip("/").split("/")
        if path == "/api/v1/server/":
            return self._identity()
        if path == "/api/v1/enroll/":
            return self._enroll(headers, body)
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.issued:
            return problem(401, "token_expired", "the token has expired")
        if parts[2] == "weights":
            if self.hold_downloads is not None:
                await asyncio.to_thread(self.hold_downloads.wait, PATIENCE_SECONDS)
            if self.busy_downloads:
                self.busy_downloads -= 1
                return Answer(503, b"busy")
            found = self.weights.get(parts[3])
            if found is None:
                return problem(404, "not_found", "there are no such weights")
            return Answer(200, found[:-1] + b"?" if self.damage_weights else found)
        if parts[4] == "failure":
            self._note(self.failures, (int(parts[3]), msgspec.json.decode(body)["reason"]))
            return Answer(200, b"{}")
        return await self._take_update(int(parts[3]), headers, body)

    def _identity(self):
        identity = ServerIdentity(
            protocol=PROTOCOL,
            algorithm=ALGORITHM,
            public_key=text_of(self.key.public_key),
            fingerprint=self.key.fingerprint,
            version="0",
        )
        return Answer(200, msgspec.json.encode(identity))

    def _enroll(self, headers, body):
        wanted = msgspec.json.decode(body, type=EnrollmentRequest)
        public_key = base64.b64decode(wanted.public_key)
        verify(public_key, base64.b64decode(headers["x-qflare-signature"]), body, ENROLL_CONTEXT)
        known = self.used.get(wanted.token_id)
        if self.tokens.get(wanted.token_id) != wanted.token_secret or (known and known.public_key != public_key):
            return problem(403, "token_refused", "the token is unknown, used or expired")
        if known is None:
            known = KnownDevice(next(self._numbers), wanted.name, public_key)
            with self.changed:
                self.used[wanted.token_id] = self.devices[known.id] = known
        receipt = EnrollmentReceipt(
            device_id=known.id,
            name=known.name,
            state=self.state_after_enrolment,
            device_fingerprint=fingerprint_of(public_key),
            server_public_key=text_of(self.key.public_key),
            server_fingerprint=self.key.fingerprint,
        )
        answer = msgspec.json.encode(receipt)
        signer = SigningKey.generate() if self.forge_receipt else self.key
        return Answer(201, answer, {"X-QFLARE-Signature": text_of(signer.sign(answer, RECEIPT_CONTEXT))})

    async def _take_update(self, assignment_id, headers, body):
        if self.busy_uploads:
            self.busy_uploads -= 1
            return Answer(503, b"busy")
        manifest_bytes = base64.b64decode(headers["x-qflare-manifest"])
        manifest = msgspec.json.decode(manifest_bytes, type=UpdateManifest)
        signature = base64.b64decode(headers["x-qflare-signature"])
        verify(self.devices[manifest.device_id].public_key, signature, manifest_bytes, UPDATE_CONTEXT)
        if self.refuse_update:
            return problem(*self.refuse_update)
        self._note(self.updates, Received(assignment_id, manifest, manifest_bytes, body))
        if self.hold_uploads is not None:
            await asyncio.to_thread(self.hold_uploads.wait, PATIENCE_SECONDS)
        with self.changed:
            device = self.devices[manifest.device_id]
            if device.assignment and device.assignment.assignment_id == assignment_id:
                device.assignment = None
        receipt = UpdateReceipt(assignment_id=assignment_id, state="late" if self.late else "accepted")
        return Answer(200, msgspec.json.encode(receipt))

    # The socket.

    async def _converse(self, receive, send):
        await receive()
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        if self.closing is not None:
            code, bye = self.closing
            if bye is not None:
                await send({"type": "websocket.send", "text": server.encode_frame("bye", bye)})
            await send({"type": "websocket.close", "code": code})
            return
        device = await self._shake_hands(receive, send)
        if device is None:
            return
        frames = asyncio.Queue()
        await self._welcome(device, send)
        with self.changed:
            device.frames = frames
            self.changed.notify_all()
        writer = asyncio.create_task(self._write(frames, send))
        try:
            await self._read(device, receive)
        finally:
            writer.cancel()
            with self.changed:
                if device.frames is frames:
                    device.frames = None
                self.changed.notify_all()

    async def _shake_hands(self, receive, send):
        hello_text = (await receive())["text"]
        hello = client.decode_message(hello_text)
        challenge = server.Challenge(
            connection_id=secrets.token_hex(4),
            server_nonce=secrets.token_hex(16),
            fingerprint=self.key.fingerprint,
            expires_in_s=30,
            signature="",
        )
        signer = SigningKey.generate() if self.forge_challenge else self.key
        signature = signer.sign(handshake.challenge_message(hello_text, challenge), CHALLENGE_CONTEXT)
        signed = msgspec.structs.replace(challenge, signature=text_of(signature))
        challenge_text = server.encode_frame("challenge", signed)
        await send({"type": "websocket.send", "text": challenge_text})
        answer = await receive()
        if answer["type"] == "websocket.disconnect":
            self._note(self.requests, "left after the challenge")
            return None
        auth = client.decode_message(answer["text"])
        device = self.devices[hello.device_id]
        try:
            proof = handshake.transcript(hello_text, challenge_text)
            verify(device.public_key, base64.b64decode(auth.signature), proof, AUTH_CONTEXT)
        except BadSignature:
            await send({"type": "websocket.close", "code": 4500})
            return None
        self._note(device.hellos, hello)
        return device

    async def _welcome(self, device, send):
        token = server.AccessToken(token=secrets.token_hex(8), expires_at=datetime.now(UTC) + timedelta(minutes=15))
        self.issued.add(token.token)
        position = server.Position(epoch=self.epoch, seq=len(device.events))
        streams = {f"device:{device.id}": position}
        welcome = server.Welcome(
            protocol=PROTOCOL,
            connection_id=secrets.token_hex(4),
            instance="little",
            time=datetime.now(UTC),
            heartbeat_seconds=self.heartbeat_seconds,
            limits=server.Limits(message_bytes=65536, messages_per_second=20, burst=50),
            streams=streams,
            device_id=device.id,
            token=token,
        )
        snapshot = server.Snapshot(streams=streams, models=list(self.models.values()), assignment=device.assignment)
        if self.hold_welcome is not None:
            await asyncio.to_thread(self.hold_welcome.wait, PATIENCE_SECONDS)
        for payload in (welcome, snapshot):
            await send({"type": "websocket.send", "text": server.encode_frame(payload.event, payload)})

    async def _read(self, device, receive):
        while (message := await receive())["type"] == "websocket.receive":
            heard = client.decode_message(message["text"])
            self._note(device.heard, heard)
            if isinstance(heard, client.Heartbeat):
                self.whisper(device.id, server.Heartbeat())

    async def _write(self, frames, send):
        while True:
            frame = await frames.get()
            if isinstance(frame, str):
                await send({"type": "websocket.send", "text": frame})
                continue
            code, bye = frame
            if bye is not None:
                await send({"type": "websocket.send", "text": server.encode_frame("bye", bye)})
            await send({"type": "websocket.close", "code": code})


@dataclass
class Received:
    """An upload as it came."""

    assignment_id: int
    manifest: UpdateManifest
    manifest_bytes: bytes
    delta: bytes


class Notes:
    """Collects what a device tells, and waits for it."""

    def __init__(self):
        self.all = []
        self._changed = threading.Condition()

    def __call__(self, note):
        with self._changed:
            self.all.append(note)
            self._changed.notify_all()

    def of(self, kind):
        return [note for note in self.all if note.kind == kind]

    def wait_for(self, kind, count=1):
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.of(kind)) >= count, PATIENCE_SECONDS)
        assert came, f"no {kind} in {self.all}"
        return self.of(kind)[count - 1]


def problem(status, code, message):
    body = ProblemBody(error=Problem(code=code, message=message))
    return Answer(status, msgspec.json.encode(body))


def text_of(data):
    return base64.b64encode(data).decode()
