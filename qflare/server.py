"""The web server: Daphne, with an orderly end, real close codes for wire errors, and bounded buffers for slow readers.

Everything is done in methods that Daphne's `Server` offers for overriding; no other package is changed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server as DaphneServer
from django.conf import settings
from twisted.internet import defer
from twisted.internet.endpoints import quoteStringArgument

from edge.protocol.close_codes import CloseCode
from qflare.http_requests import Factory, begin_application
from qflare.outlets import Watch
from qflare.serving import BACKLOG, CLOSE_SECONDS, CannotListen, Certificate
from qflare.sockets import Socket, begin_socket
from realtime.process import running_process
from realtime.publishing import use_loop

TURNS = 5
"""Daphne looks at all connections every one and every two seconds; here every so many of these times."""


class Server(DaphneServer):
    """Daphne for one address."""

    def __init__(
        self,
        application: Any,
        *,
        host: str,
        port: int,
        certificate: Certificate | None = None,
        started: Any = None,
        ending: Any = None,
        signal_handlers: bool = True,
    ) -> None:
        """Make a server.

        Args:
            certificate: makes it speak TLS, and nothing else.
            started: is called with the port once the server listens.
            ending: is called when the end begins.
            signal_handlers: end by SIGTERM and SIGINT, which only a main thread can.
        """
        DaphneServer.__init__(
            self,
            application,
            endpoints=[endpoint_of(host, port, certificate)],
            signal_handlers=signal_handlers,
            ping_interval=settings.QFLARE_PING_SECONDS,
            ping_timeout=settings.QFLARE_PONG_SECONDS,
            ready_callable=self._set_up,
            server_name="qflare",
        )
        self._started = started
        self._ending = ending
        self._ports: list[Any] = []
        self._watch = Watch()
        self._failure = ""
        self._turns = Counter[str]()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            CannotListen: the address is taken, or not ours.
        """
        DaphneServer.run(self)
        if self._failure:
            raise CannotListen(self._failure)

    def _set_up(self) -> None:
        self.ws_factory.protocol = Socket
        # Options that are not named here go back to Autobahn's own, so those that Daphne sets are repeated.
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            closeHandshakeTimeout=CLOSE_SECONDS,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
            failByDrop=False,
        )
        use_loop(asyncio.get_event_loop())

    @property
    def http_factory(self) -> Any:
        """What makes connections; Daphne makes one of its own at its start, and listens with this one."""
        return self._http_factory

    @http_factory.setter
    def http_factory(self, _: Any) -> None:
        self._http_factory = Factory(self)

    # ── listening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def listen_success(self, port: Any) -> None:
        """Take note of the port, to close it first when the end comes."""
        DaphneServer.listen_success(self, port)
        self._ports.append(port)
        if self._started is not None:
            self._started(port.getHost().port)

    def listen_error(self, failure: Any) -> None:
        """Stop, and let `run` say why."""
        self._failure = failure.getErrorMessage()
        DaphneServer.stop(self)

    # ── sockets ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Begin the application for a request or a socket."""
        if scope["type"] == "http":
            return begin_application(self, protocol, scope)
        return begin_socket(self, protocol, scope, self._watch)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Send for the application, and let it wait while the peer does not keep up."""
        kind = message.get("type", "")
        if not kind.startswith("websocket."):
            await DaphneServer.handle_reply(self, protocol, message)
            await protocol.drained()
            return
        if kind != "websocket.accept" and protocol.state not in (protocol.STATE_CONNECTING, protocol.STATE_OPEN):
            return  # it is closing: autobahn would raise, and the consumer would die instead of leaving
        await DaphneServer.handle_reply(self, protocol, message)
        if kind == "websocket.accept" and protocol.state == protocol.STATE_OPEN:
            protocol.outlet.open()
        elif kind == "websocket.close" and message.get("code") == CloseCode.TOO_SLOW:
            protocol.outlet.end("was too slow")
        elif kind == "websocket.send":
            await protocol.outlet.drained()

    # ── what Daphne looks after by the clock ──────────────────────────────────────────────────────────────────────────

    def application_checker(self) -> None:
        """Forget applications that have ended, and what ends them late, of all connections in one go."""
        self._at_a_slower_clock("applications", 1, DaphneServer.application_checker)

    def timeout_checker(self) -> None:
        """Ping who has been silent for long."""
        self._at_a_slower_clock("timeouts", 2, DaphneServer.timeout_checker)

    def _at_a_slower_clock(self, name: str, seconds: int, look: Callable[[DaphneServer], None]) -> None:
        # To look at a thousand idle connections each second would be a good part of what they cost.
        self._turns[name] += 1
        if self._turns[name] % TURNS:
            asyncio.get_running_loop().call_later(seconds, getattr(self, look.__name__))
        else:
            look(self)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill_all_applications(self) -> Any:
        """Take nobody new, tell every socket, let every consumer leave, and only then cancel what is left."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        if self._ending is not None:
            self._ending()
        for port in self._ports:
            port.stopListening()
        process = running_process()
        if process is not None:
            await process.close_all()
        running = [
            application
            for details in list(self.connections.values())
            if (application := details.get("application_instance")) is not None and not application.done()
        ]
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_SECONDS)
            for application in late:
                application.cancel()
            if late:
                await asyncio.wait(late, timeout=CLOSE_SECONDS / 4)
        if process is not None:
            await process.stop()


def endpoint_of(host: str, port: int, certificate: Certificate | None) -> str:
    """Return Twisted's description of an address to listen on, over TLS where there is a certificate."""
    (tcp,) = build_endpoint_description_strings(host=host, port=port)
    description = f"{tcp}:backlog={BACKLOG}"
    if certificate is None:
        return description
    chain, key = (quoteStringArgument(str(path)) for path in (certificate.chain, certificate.key))
    description = f"ssl:{description.removeprefix('tcp:')}:certKey={chain}:privateKey={key}"
    # Of its certificate's file Twisted takes the first one only; the others have to be named, and come with it.
    has_others = certificate.chain.read_bytes().count(b"BEGIN CERTIFICATE") > 1
    return f"{description}:extraCertChain={chain}" if has_others else description
