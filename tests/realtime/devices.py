"""A device's side of the handshake, by hand: every part can be spoiled."""

from base64 import b64decode, b64encode

from edge.identity import AUTH_CONTEXT, CHALLENGE_CONTEXT, SigningKey, verify
from edge.protocol import PROTOCOL, client, handshake
from edge.protocol.server import Challenge, decode_frame, decode_payload
from fl.server_key import server_key
from fl.tasks import digest_of_task
from tests.realtime.sockets import Socket


def hello_of(participant, **changes):
    """Return the text of a device's hello."""
    fields = {
        "protocol": PROTOCOL,
        "device_id": participant.device.pk,
        "client_nonce": b64encode(b"n" * 32).decode(),
        "tasks": [
            client.TaskOffer(
                task=participant.task, digest=digest_of_task(participant.task), num_examples=40, supports=["proximal"]
            )
        ],
        "edge_version": "0.1.0",
        **changes,
    }
    return client.encode_message(client.Hello(**fields))


def answer_to(challenge_text, hello, key):
    """Return the text of the auth message that answers a challenge."""
    signature = key.sign(handshake.transcript(hello, challenge_text), AUTH_CONTEXT)
    return client.encode_message(client.Auth(signature=b64encode(signature).decode()))


def check_challenge(challenge_text, hello, public_key):
    """Check the server's signature as a device does, and return the challenge."""
    frame = decode_frame(challenge_text)
    challenge = decode_payload(frame.event, frame.data)
    assert isinstance(challenge, Challenge)
    message = handshake.challenge_message(hello, challenge)
    verify(public_key, b64decode(challenge.signature), message, CHALLENGE_CONTEXT)
    return challenge


async def shake_hands(participant, *, key=None, path="/ws/clients", since=None, **changes):
    """Connect and answer the challenge; what follows is the caller's."""
    socket = await Socket(path, origin=None, headers={}).connect()
    hello = hello_of(participant, since=since or {}, **changes)
    await socket.say_text(hello)
    challenge_text = await socket.text()
    check_challenge(challenge_text, hello, server_key().public_key)
    await socket.say_text(answer_to(challenge_text, hello, key or participant.key))
    return socket


async def connected_device(participant, **options):
    """Connect a device up to and with its snapshot."""
    socket = await shake_hands(participant, **options)
    socket.opening = await socket.opened()
    return socket


def another_key():
    return SigningKey.generate()
