"""A device made by hand: a true key, true handshakes over the real socket, free to send what no honest one would."""

import hashlib
from base64 import b64decode, b64encode
from contextlib import ExitStack

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge.identity import ALGORITHM, AUTH_CONTEXT, CHALLENGE_CONTEXT, UPDATE_CONTEXT, verify
from edge.protocol import PROTOCOL, client, handshake, server
from edge.protocol.http import MANIFEST_HEADER, SIGNATURE_HEADER, UpdateManifest
from edge.store import Home
from edge.tasks import DataSource, TrainingSettings, task_digest, task_spec
from edge.training import train
from edge.wire import decode, encode
from tests.journeys.tasks import Patient
from tests.journeys.waiting import GIVE_UP_SECONDS


class Handmade:
    """A device with a socket and the doors of HTTP; it does only what a test tells it."""

    def __init__(self, house, number):
        home = Home(house.home(number))
        self.house = house
        self.account, self.key = home.account(), home.key()
        self.task = Patient()
        self.examples = self.task.training_examples(DataSource())
        self.token = ""
        self.said = None
        self._socket = None
        self._resources = ExitStack()
        self._done = 0
        self._http = httpx.Client(base_url=house.address, trust_env=False, timeout=GIVE_UP_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self._http.close()

    # ── the socket ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self):
        """Open a socket and say nothing yet."""
        self.close()
        url = self.house.address.replace("http", "ws") + "/ws/clients"
        self._socket = self._resources.enter_context(connect(url, subprotocols=[PROTOCOL], proxy=None, max_queue=None))
        return self

    def close(self):
        """Close the socket, if one is open."""
        self._resources.close()

    def hello(self, **changes):
        """Return the text of a `hello` that offers the task."""
        offer = client.TaskOffer(
            task=self.task.name, digest=task_digest(self.task), num_examples=len(self.examples), supports=["proximal"]
        )
        hello = client.Hello(
            protocol=PROTOCOL,
            device_id=self.account.device_id,
            client_nonce=b64encode(b"a nonce of the client's choosing").decode(),
            tasks=[offer],
        )
        return client.encode_message(msgspec.structs.replace(hello, **changes))

    def greet(self, hello):
        """Send a `hello`, and return the challenge's text, its signature being that of the server's pinned key."""
        self.say(hello)
        text = self.hear()
        challenge = server.decode_payload("challenge", server.decode_frame(text).data)
        message = handshake.challenge_message(hello, challenge)
        verify(self.account.server_key, b64decode(challenge.signature), message, CHALLENGE_CONTEXT)
        return text

    def answer(self, hello, challenge, *, key=None, context=AUTH_CONTEXT):
        """Return the text of the `auth` that answers a challenge."""
        signature = (key or self.key).sign(handshake.transcript(hello, challenge), context)
        return client.encode_message(client.Auth(signature=b64encode(signature).decode()))

    def connect(self, **changes):
        """Connect as a device does, `changes` to its `hello` aside; keeps what was said in the handshake."""
        self.open()
        hello = self.hello(**changes)
        challenge = self.greet(hello)
        self.said = (hello, challenge, self.answer(hello, challenge))
        self.say(self.said[-1])
        self.token = self.read_until("welcome")["token"]["token"]
        return self

    def say(self, text):
        self._socket.send(text)

    def hear(self):
        return self._socket.recv(GIVE_UP_SECONDS)

    def read_until(self, event, condition=lambda data: True):
        """Take frames until one of this event fulfils the condition; return its data."""
        while True:
            frame = server.decode_frame(self.hear())
            data = msgspec.json.decode(frame.data)
            if frame.event == event and condition(data):
                return data

    def read_to_the_end(self):
        """Take all that comes until the server closes the socket; return the frames' events and data, and the code."""
        heard = []
        try:
            while True:
                frame = server.decode_frame(self.hear())
                heard.append((frame.event, msgspec.json.decode(frame.data)))
        except ConnectionClosed as closed:
            return heard, closed.rcvd.code

    # ── assignments ───────────────────────────────────────────────────────────────────────────────────────────────────

    def next_assignment(self):
        """Wait for an assignment that is newer than the last."""
        data = self.read_until("assignment", lambda data: data["assignment_id"] > self._done)
        self._done = data["assignment_id"]
        return msgspec.convert(data, server.Assignment)

    def base_of(self, assignment):
        answer = self._http.get(assignment.weights_url, headers=self._bearer())
        assert answer.is_success, answer.text
        return decode(answer.content, task_spec(self.task))

    def train(self, assignment):
        """Train as it was told; return the delta's bytes."""
        settings = TrainingSettings(**msgspec.structs.asdict(assignment.training))
        base = self.base_of(assignment)
        return encode(train(self.task, self.examples, base, settings, lambda _: None, lambda: False).delta)

    def manifest(self, assignment, data, **changes):
        """Return the exact bytes of an honest manifest, but for `changes`."""
        manifest = UpdateManifest(
            algorithm=ALGORITHM,
            protocol=PROTOCOL,
            device_id=self.account.device_id,
            run_id=assignment.run_id,
            round=assignment.round,
            assignment_id=assignment.assignment_id,
            base_digest=assignment.base_digest,
            update_digest=hashlib.sha256(data).hexdigest(),
            size=len(data),
            num_examples=len(self.examples),
            metrics={"loss": 1.0},
        )
        return msgspec.json.encode(msgspec.structs.replace(manifest, **changes))

    def headers(self, manifest, signature=None):
        signature = self.key.sign(manifest, UPDATE_CONTEXT) if signature is None else signature
        return {
            "Content-Type": "application/octet-stream",
            MANIFEST_HEADER: b64encode(manifest).decode(),
            SIGNATURE_HEADER: b64encode(signature).decode(),
            **self._bearer(),
        }

    def send(self, assignment, data, *, manifest=None, signature=None, content=None):
        """Send an update through the real door; what is not given is as an honest device makes it."""
        manifest = self.manifest(assignment, data) if manifest is None else manifest
        content = data if content is None else content
        return self._http.put(assignment.update_url, headers=self.headers(manifest, signature), content=content)

    def _bearer(self):
        return {"Authorization": f"Bearer {self.token}"}
