"""What all connections have in common: accept, find out who it is, open the streams, answer messages, leave no trace.

It is a Channels consumer with two differences. It has no layer channel of its own, since the hub receives for all; and
messages are dispatched without the thread hop that the parent makes for each, since the database is only ever touched
through `realtime.database.query`. Sending is the connection's writer's affair alone.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.utils import timezone

from edge.protocol import PROTOCOL, client
from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Error, Heartbeat, Limits, Position, Result, Welcome, encode_frame
from fl.addresses import client_address
from fl.exceptions import Conflict, FlError, Invalid, NotFound
from realtime import opening
from realtime.authentication import header
from realtime.close_codes import close_code_of, require_sendable
from realtime.connection import Connection, Start, no_traffic
from realtime.database import query
from realtime.frames import Frame
from realtime.groups import Kind
from realtime.limits import MAX_POSITIONS, REPLAYS_AT_ONCE, ErrorBudget, TokenBucket, limits_of
from realtime.opening import Opening, Plan
from realtime.process import Process, this_process
from realtime.timers import SharedTimer

logger = logging.getLogger(__name__)

QUIET_HEARTBEAT = Frame(encode_frame(Heartbeat.event, Heartbeat(s={})))
"""That of a connection whose streams have not moved."""

Message = dict[str, Any]
Scope = Any
"""ASGI's dicts; the stubs of Channels know a narrower shape for each server."""
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Refused(Exception):
    """A client's message is answered with an `error`."""

    def __init__(self, code: str, message: str, *, id: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.retry_after = retry_after


class Gone(Exception):
    """The connection has ended; there is nothing more to do for it."""


class Consumer(AsyncWebsocketConsumer):
    """One socket, from its upgrade request to its end.

    Subclasses say who is at the other end (`authenticate`) and what else they answer (`handle`).
    """

    kind: ClassVar[Kind]
    history: ClassVar[int] = 50
    """How many of the newest events of a stream one gets that does not resume."""
    always_snapshot: ClassVar[bool] = False

    scope: Scope
    base_send: Send
    process: Process
    connection: Connection
    limits: Limits
    is_open = False
    """The welcome has been said."""

    # ── the life of a connection ──────────────────────────────────────────────────────────────────────────────────────

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket to its end; whatever happens, the connection is forgotten afterwards."""
        self.scope = scope
        self.base_send = send
        self._task = asyncio.current_task()
        self._is_lost = False
        self._code = 1006
        try:
            while True:
                await self.dispatch(await receive())
        except Gone:
            pass
        except asyncio.CancelledError:
            if not self._is_lost:
                raise
        finally:
            await self._leave()

    async def dispatch(self, message: Message) -> None:
        """Hand a message of the server to its handler."""
        match message["type"]:
            case "websocket.connect":
                await self.websocket_connect(message)
            case "websocket.receive":
                await self.websocket_receive(message)
            case "websocket.disconnect":
                self._code = message.get("code", 1005)
                raise Gone

    async def websocket_connect(self, message: Any) -> None:
        """Accept the socket first and look who it is afterwards: refusals before that reach a browser as 1006 only."""
        if not self.may_come_in():
            await self.base_send({"type": "websocket.close", "code": CloseCode.FORBIDDEN})
            raise Gone
        offered = self.scope.get("subprotocols", [])
        await self.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        self.process = this_process()
        extensions = self.scope.get("extensions") or {}
        self.connection = Connection(
            kind=self.kind,
            send=self._send_text,
            close=self.close,
            log=self.process.hub.log,
            counters=self.process.hub.counters,
            lost=self._lose,
            write_at_once=extensions.get("qflare.frames", {}).get("write"),
            traffic=extensions.get("qflare.traffic", {}).get("bytes", no_traffic),
            is_watched="qflare.backpressure" in extensions,
        )
        self.connection.start()
        loop = asyncio.get_running_loop()
        self.limits = limits_of(self.kind)
        self._bucket = TokenBucket(self.limits.messages_per_second, self.limits.burst, loop.time())
        self._errors = ErrorBudget(settings.QFLARE_MAX_MISTAKES)
        self._heard_at = loop.time()
        self._keeps_heartbeats = False
        self._timers: list[SharedTimer] = []
        if not self.process.let_in(self.connection, self.client_address):
            return
        self.later(settings.QFLARE_HANDSHAKE_SECONDS, self.look_whether_open)
        await self._guard(self.connect)

    async def websocket_receive(self, message: Any) -> None:
        """Take a frame of the client; whatever is in it, the connection lives or ends with a reason."""
        if self.connection.closed_with is not None:
            return
        self._heard_at = asyncio.get_running_loop().time()
        await self._attempt(lambda: self._take(message))

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for a client; what goes wrong with it is answered."""
        try:
            await self._guard(work)
        except Refused as refusal:
            self._answer_refusal(refusal)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let nothing out of a handler but refusals: an error that nobody expected is logged whole and answered."""
        try:
            await work()
        except Refused:
            raise
        except FlError as error:
            self.connection.say(Error(code=error.reason_code, message=error.message))
            self.connection.close(close_code_of(error), error.message)
        except Exception:
            logger.exception("a message of %s %s could not be handled", self.kind, self.connection.id)
            if self.is_open:
                raise Refused("internal", "the server failed at this message; its log says why") from None
            self.connection.close(CloseCode.RESTARTING, "the server failed to open this connection")

    async def _leave(self) -> None:
        connection = getattr(self, "connection", None)
        if connection is None:
            return
        for timer in self._timers:
            timer.cancel()
        await connection.end()
        self.process.door.leave(connection.id)
        await self.process.hub.leave(connection)
        self.process.connections.pop(connection.id, None)
        self.process.people.pop(connection.id, None)
        self.process.devices.pop(connection.id, None)
        try:
            await self.disconnect(self._code)
        except Exception:
            # Presence corrects itself when the lease runs out.
            logger.exception("the end of %s %s could not be noted", self.kind, connection.id)

    def _lose(self) -> None:
        self._is_lost = True
        if self._task is not None:
            self._task.cancel()

    async def _send_text(self, frame: str) -> None:
        await self.base_send({"type": "websocket.send", "text": frame})

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the socket; refuse codes that some servers cannot send."""
        require_sendable(code or CloseCode.NORMAL)
        await self.base_send({"type": "websocket.close", "code": int(code or CloseCode.NORMAL)})

    # ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def may_come_in(self) -> bool:
        """Say whether the upgrade is accepted at all."""
        return True

    async def connect(self) -> None:
        """Find out who it is and open the connection; devices speak first, so theirs differs."""
        raise NotImplementedError

    def look_whether_open(self) -> None:
        """End a connection that is not open by now, whichever side was slow; it may come again."""
        if not self.is_open and self.connection.closed_with is None:
            self.connection.close(CloseCode.RESTARTING, "the connection was not opened in time")

    async def open(self, since: dict[str, Position], welcome: Callable[[Plan], Welcome], *groups: str) -> None:
        """Join the hub, say welcome, and send what was missed; from then on the connection is live."""
        await self.process.hub.join(self.connection, self.kind, *groups)
        plan = await self.process.plans.ask(self._opening(since, None), self.is_wanted)
        if plan is None:
            return
        self.process.hub.track((part.stream, part.epoch, part.head, part.labels) for part in plan.parts)
        self.connection.say(welcome(plan))
        self.connection.resume(starts_of(plan), opening.replay(plan, self.process.hub.log))
        self.is_open = True
        self._schedule_heartbeat()

    def is_wanted(self) -> bool:
        """Say whether the connection has not been given up meanwhile."""
        return self.connection.closed_with is None

    def _opening(self, since: dict[str, Position], streams: list[str] | None) -> Opening:
        return Opening(
            principal=self.connection.principal,
            kind=self.kind,
            since=since,
            streams=streams,
            history=self.history,
            always_snapshot=self.always_snapshot and streams is None,
        )

    def welcome_to(self, plan: Plan) -> Welcome:
        """Return the welcome, as far as it is the same for all."""
        return Welcome(
            protocol=PROTOCOL,
            connection_id=self.connection.id,
            instance=self.process.instance,
            time=timezone.now(),
            heartbeat_seconds=settings.QFLARE_HEARTBEAT_SECONDS,
            limits=self.limits,
            streams=plan.positions,
        )

    def positions_in_url(self) -> dict[str, Position]:
        """Read `?since=<stream>:<epoch>:<seq>`, repeated; positions are no secrets, and a listener can resume so."""
        values = [
            value for name, value in parse_qsl(self.scope.get("query_string", b"").decode("latin-1")) if name == "since"
        ]
        return positions_of(values)

    @property
    def origin(self) -> str:
        """Where the page comes from that connects; empty for programs, which have no origin."""
        return header(self.scope["headers"], b"origin")

    @property
    def client_address(self) -> str:
        """Whose connections this one is counted with."""
        peer = self.scope.get("client")
        forwarded = ",".join(
            value.decode("latin-1") for name, value in self.scope["headers"] if name.lower() == b"x-forwarded-for"
        )
        return client_address(peer[0] if peer else "", forwarded, settings.QFLARE_TRUSTED_PROXIES)

    @property
    def address(self) -> str:
        """The peer, for the log."""
        peer = self.scope.get("client")
        return f"{peer[0]}:{peer[1]}" if peer else "unknown"

    # ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, message: Message) -> None:
        text = message.get("text")
        if text is None:
            raise Refused("binary_not_supported", "messages are JSON in text frames; model weights go by HTTP")
        if len(text) > self.limits.message_bytes or len(text.encode()) > self.limits.message_bytes:
            raise Refused("too_large", f"a message has at most {self.limits.message_bytes} bytes")
        if wait := self._bucket.take(self._heard_at):
            rate = self.limits.messages_per_second
            raise Refused("rate_limited", f"at most {rate:g} messages a second are taken", retry_after=round(wait, 3))
        parsed = parse(text)
        try:
            await self.receive_message(parsed, text)
        except (Invalid, NotFound, Conflict) as error:
            raise Refused(error.reason_code, error.message, id=parsed.id) from error
        except Refused as refusal:
            refusal.id = refusal.id or parsed.id
            raise

    async def receive_message(self, message: client.Message, text: str) -> None:
        """Answer a message; what only some connections take is left to `handle`."""
        match message:
            case client.Heartbeat():
                self._keeps_heartbeats = True
                await self.answer_heartbeat(message)
            case client.Subscribe():
                await self._subscribe(message.streams, message.since, message.id)
            case client.Unsubscribe():
                self._unsubscribe(message)
            case client.Hello() if self.is_open:
                await self._greet(message)
            case _:
                await self.handle(message, text)

    async def handle(self, message: client.Message, text: str) -> None:
        """Answer what only this type of connection takes."""
        raise Refused("unknown_type", f"this connection takes no {message.__struct_config__.tag}")

    async def answer_heartbeat(self, heartbeat: client.Heartbeat) -> None:
        """Answer a sign of life that has an id, by which people measure the way there and back; else it needs none."""
        if heartbeat.id is not None:
            self.connection.say(Result(), id=heartbeat.id)

    async def _greet(self, hello: client.Hello) -> None:
        if hello.protocol != PROTOCOL:
            self.connection.close(CloseCode.PROTOCOL_ERROR, f"this server speaks {PROTOCOL}, not {hello.protocol}")
            return
        self._keeps_heartbeats = True
        if hello.since:
            await self._subscribe(list(hello.since), hello.since, hello.id)

    async def _subscribe(self, streams: list[str], since: dict[str, Position], id: str | None) -> None:
        if len(streams) > MAX_POSITIONS or len(since) > MAX_POSITIONS:
            raise Refused("invalid_message", f"one message names at most {MAX_POSITIONS} streams")
        if self.connection.replays >= REPLAYS_AT_ONCE:
            raise Refused("rate_limited", "take first what was asked for before", retry_after=1)
        names = list(dict.fromkeys(streams))
        self.connection.hold(names)
        try:
            positions = {name: since[name] for name in names if name in since}
            plan = await query(opening.plan, self._opening(positions, names))
        except Exception:
            self.connection.resume([], nothing(), released=names)
            raise
        self.process.hub.track((part.stream, part.epoch, part.head, part.labels) for part in plan.parts)
        found = {part.stream for part in plan.parts}
        missing = [name for name in names if name not in found]
        self.connection.say(Result(result={"streams": len(found)}), id=id)
        if missing:
            # A stream that may not be seen is answered like one that is not there.
            self.connection.say(Error(code="not_found", message=f"no such stream: {', '.join(missing)[:500]}"), id=id)
        self.connection.resume(starts_of(plan), opening.replay(plan, self.process.hub.log), released=missing)

    def _unsubscribe(self, message: client.Unsubscribe) -> None:
        self.connection.narrowed = True
        self.connection.drop(message.streams)
        self.connection.say(Result(result={"streams": len(message.streams)}), id=message.id)

    def _answer_refusal(self, refusal: Refused) -> None:
        self.connection.say(
            Error(code=refusal.code, message=refusal.message, retry_after=refusal.retry_after), id=refusal.id
        )
        # What the server fails at is no mistake of the client's.
        if refusal.code != "internal" and self._errors.spend(asyncio.get_running_loop().time()):
            if refusal.code == "rate_limited":
                self.connection.close(CloseCode.TOO_MANY, "too many messages, again and again")
            else:
                self.connection.close(CloseCode.PROTOCOL_ERROR, "too many messages that could not be taken")

    # ── heartbeats ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule_heartbeat(self) -> None:
        seconds = settings.QFLARE_HEARTBEAT_SECONDS
        # Spread, so that connections that came together do not beat together.
        self.later(seconds * random.uniform(0.9, 1.1), self._beat)

    def _beat(self) -> None:
        if self.connection.closed_with is not None:
            return
        # One that has to wait may reach a slow reader too late to be answered in time; the next one counts.
        is_sent_now = self.connection.is_idle
        self.connection.push(heartbeat_of(self.connection.heads_since_last_told()))
        if is_sent_now:
            beaten_at = asyncio.get_running_loop().time()
            self.later(settings.QFLARE_HEARTBEAT_SECONDS / 3, lambda: self._expect_answer(beaten_at))
        self._schedule_heartbeat()

    def _expect_answer(self, beaten_at: float) -> None:
        # A client that only listens never promised to answer; protocol pings look after it.
        if self._keeps_heartbeats and self._heard_at < beaten_at:
            self.connection.close(CloseCode.HEARTBEAT_MISSED)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call something after a while, unless the connection has ended by then."""
        self._timers = [timer for timer in self._timers if not timer.is_over]
        self._timers.append(self.process.timers.call_later(seconds, function))


def heartbeat_of(heads: dict[str, int]) -> Frame:
    """Return the heartbeat that tells of these streams' heads; the same one for all connections without news."""
    return Frame(encode_frame(Heartbeat.event, Heartbeat(s=heads))) if heads else QUIET_HEARTBEAT


def starts_of(plan: Plan) -> list[Start]:
    """Return where the replay of a plan ends in each stream."""
    return [Start(part.stream, part.epoch, part.head, part.labels) for part in plan.parts]


def positions_of(values: Iterable[str]) -> dict[str, Position]:
    """Read positions written as `<stream>:<epoch>:<seq>`; what is none is passed over, and its stream starts fresh."""
    found: dict[str, Position] = {}
    for value in list(values)[:MAX_POSITIONS]:
        stream, _, rest = value.rpartition(":")
        name, _, epoch = stream.rpartition(":")
        if name and epoch and rest.isascii() and rest.isdecimal() and len(rest) < 20:
            found[name] = Position(epoch=epoch, seq=int(rest))
    return found


def parse(text: str) -> client.ClientMessage:
    """Read a client's message.

    Raises:
        Refused: it is not JSON, no message, or has a wrong field; the text says which.
    """
    try:
        return client.decode_message(text)
    except msgspec.ValidationError as error:
        code = "unknown_type" if "Invalid value" in str(error) and "$.type" in str(error) else "invalid_message"
        raise Refused(code, str(error), id=_id_of(text)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise Refused("invalid_json", f"this is not JSON: {error}") from error


def _id_of(text: str) -> str | None:
    try:
        found = msgspec.json.decode(text, type=_Identified)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found.id


class _Identified(msgspec.Struct):
    id: str | None = None


async def nothing() -> AsyncIterator[tuple[str, str]]:
    """Return a replay of no frames."""
    for none in list[tuple[str, str]]():
        yield none
