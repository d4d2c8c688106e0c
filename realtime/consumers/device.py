"""Devices (`/ws/clients`): the handshake that proves a key, then assignments down, progress up; no cookies.

The device speaks first. Until it has proved its key it hears the challenge and nothing else, and why it was not let in
only when the key was right.
"""

import asyncio
import base64
import secrets
from functools import partial

import msgspec
from django.conf import settings
from django.utils import timezone

from edge.identity import CHALLENGE_CONTEXT
from edge.protocol import PROTOCOL, client, handshake
from edge.protocol.close_codes import CloseCode
from edge.protocol.server import AccessToken, Challenge, Error, Heartbeat, Welcome, encode_frame
from fl import assignments, devices
from fl.exceptions import Unauthenticated
from fl.models import Device
from fl.server_key import server_key
from fl.visibility import Principal, principal_of_device
from realtime.authentication import verify_device
from realtime.consumers.base import Consumer, Refused, heartbeat_of
from realtime.database import query
from realtime.frames import Frame
from realtime.groups import Kind, device_group
from realtime.opening import Plan

SILENCE = 2.25
"""Heartbeats that may be missed before the connection is ended; the lease outlasts it."""


class DeviceConsumer(Consumer):
    """A device, from its `hello` to its end."""

    kind = Kind.CLIENTS
    history = 0
    always_snapshot = True
    """The snapshot is the truth about the device's assignment."""

    async def connect(self) -> None:
        """Wait for the device's `hello`, not for ever."""
        self._hello: client.Hello | None = None
        self._hello_text = ""
        self._challenge_text = ""
        self._device: Device | None = None
        self._token: AccessToken | None = None
        self._progress: client.Progress | None = None
        """The newest, while it waits to be written."""
        self._writing: asyncio.Task[None] | None = None

    async def disconnect(self, code: int) -> None:
        """Give up the lease of this very connection; a newer one of the device keeps its own."""
        if self._writing is not None:
            await self._writing
        if self._device is not None:
            # First: the next connection of the device is to find what it has said on this one.
            await self.process.write_acknowledged()
            await query(devices.disconnected, connection_id=self.connection.id, now=timezone.now())

    async def receive_message(self, message: client.Message, text: str) -> None:
        """Let nothing but the handshake in before the device is known."""
        match message:
            case client.Hello() if self._hello is None:
                await self._challenge(message, text)
            case client.Auth() if self._challenge_text and self._device is None:
                await self._admit(message)
            case _ if self._device is None:
                self._refuse("a device says `hello`, then `auth`, and nothing before that")
            case client.Hello() | client.Auth():
                raise Refused("invalid_message", "the handshake is over")
            case _:
                self.process.heard.add(self.connection.id)
                await super().receive_message(message, text)

    async def handle(self, message: client.Message, text: str) -> None:
        """Take progress and acknowledgements."""
        device, _ = self._admitted()
        match message:
            case client.Progress():
                self._take_progress(device, message)
            case client.Ack():
                self._acknowledge(device, message)
            case _:
                await super().handle(message, text)

    def _take_progress(self, device: Device, progress: client.Progress) -> None:
        assignments.check_progress(progress)
        self._progress = progress
        # Not awaited: while the database is away, the device's heartbeats would wait behind its progress.
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(
                self._write_progress(device), name=f"progress of device {device.pk} at {self.connection.id}"
            )

    async def _write_progress(self, device: Device) -> None:
        while (progress := self._progress) is not None:
            self._progress = None
            report = partial(assignments.report_progress, device_id=device.pk, progress=progress, now=timezone.now())
            await self._attempt(partial(query, report))

    def _acknowledge(self, device: Device, ack: client.Ack) -> None:
        if ack.stream != device.stream:
            raise Refused("invalid_message", f"a device acknowledges its own stream, {device.stream}, only")
        cursor = self.connection.cursors.get(device.stream)
        if cursor is None or not 0 <= ack.seq <= cursor.heard:
            raise Refused("invalid_message", f"{device.stream} has no event {ack.seq} yet")
        known = self.process.acknowledged
        known[device.pk] = max(ack.seq, known.get(device.pk, 0))

    # ── the handshake ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _challenge(self, hello: client.Hello, text: str) -> None:
        if hello.protocol != PROTOCOL:
            self.connection.close(CloseCode.PROTOCOL_ERROR, f"this server speaks {PROTOCOL}, not {hello.protocol}")
            return
        if hello.device_id is None or not hello.client_nonce:
            self._refuse("a device's `hello` brings its id and a nonce")
            return
        self._hello, self._hello_text = hello, text
        unsigned = Challenge(
            connection_id=self.connection.id,
            server_nonce=base64.b64encode(secrets.token_bytes(32)).decode(),
            fingerprint=server_key().fingerprint,
            expires_in_s=handshake.CHALLENGE_EXPIRES_SECONDS,
            signature="",
        )
        signature = server_key().sign(handshake.challenge_message(text, unsigned), CHALLENGE_CONTEXT)
        signed = msgspec.structs.replace(unsigned, signature=base64.b64encode(signature).decode())
        self._challenge_text = encode_frame(Challenge.event, signed)
        self.connection.push(Frame(self._challenge_text))
        self.later(handshake.CHALLENGE_EXPIRES_SECONDS, self.look_whether_open)

    async def _admit(self, auth: client.Auth) -> None:
        hello, challenge = self._hello, self._challenge_text
        if hello is None or hello.device_id is None:
            raise Unauthenticated("no `hello` came before this `auth`")
        # One use: a second answer to the same challenge finds none.
        self._challenge_text = ""
        await query(
            verify_device,
            device_id=hello.device_id,
            hello=self._hello_text,
            challenge=challenge,
            signature=auth.signature,
        )
        now = timezone.now()
        # In the group before it is known anywhere: a revocation from now on finds it.
        await self.process.hub.join(self.connection, device_group(hello.device_id))
        self._device = await query(
            devices.connected,
            device_id=hello.device_id,
            connection_id=self.connection.id,
            instance=self.process.instance,
            hello=hello,
            now=now,
            serving_since=self.process.started_at,
        )
        self.process.devices[self.connection.id] = self._device.pk
        self.process.door.is_device(self.connection.id)
        self.connection.principal, self._token = await query(_standing_of, self._device)
        await self.open(hello.since, self._welcome, device_group(self._device.pk))

    def _welcome(self, plan: Plan) -> Welcome:
        device, token = self._admitted()
        return msgspec.structs.replace(self.welcome_to(plan), device_id=device.pk, token=token)

    def _admitted(self) -> tuple[Device, AccessToken]:
        if self._device is None or self._token is None:
            raise Unauthenticated("the handshake is not over")
        return self._device, self._token

    def _refuse(self, message: str) -> None:
        self.connection.say(Error(code="not_authenticated", message=message))
        self.connection.close(CloseCode.NOT_AUTHENTICATED)

    # ── heartbeats ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule_heartbeat(self) -> None:
        # Devices beat by themselves and are answered; the server only watches that they do.
        self.later(settings.QFLARE_HEARTBEAT_SECONDS / 2, self._watch)

    def _watch(self) -> None:
        silent = asyncio.get_running_loop().time() - self._heard_at
        if silent > SILENCE * settings.QFLARE_HEARTBEAT_SECONDS:
            self.connection.close(CloseCode.HEARTBEAT_MISSED)
        else:
            self._schedule_heartbeat()

    async def answer_heartbeat(self, heartbeat: client.Heartbeat) -> None:
        """Answer a heartbeat, with a renewed token when the device's is past half its life."""
        device, token = self._admitted()
        heads = self.connection.heads_since_last_told()
        now = timezone.now()
        left = (token.expires_at - now).total_seconds()
        if left > settings.QFLARE_DEVICE_TOKEN_SECONDS / 2:
            self.connection.push(heartbeat_of(heads))
            return
        self._token = devices.access_token(device=device, now=now)
        self.connection.say(Heartbeat(s=heads, token=self._token))


def _standing_of(device: Device) -> tuple[Principal, AccessToken]:
    return principal_of_device(device), devices.access_token(device=device, now=timezone.now())
