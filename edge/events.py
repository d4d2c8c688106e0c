"""Everything that happens on a server, for programs, in five lines:

    from edge.events import Events

    for event in Events("https://learning.example.org", cookie="sessionid=…"):
        print(event.stream, event.seq, event.event, event.data)

Each durable event comes once and in order, over restarts of the server and losses of the network. Where the server
cannot say what was missed, a `snapshot` says what is true instead.
"""

import random
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Origin, Subprotocol

from edge.backoff import LOST, Ending, next_attempt, reconnect_delay
from edge.errors import Barred, ServerUnreachable
from edge.following import Event, Follower, Gap
from edge.http import Server, trusted_certificates
from edge.line import Line
from edge.protocol import PROTOCOL, client
from edge.protocol.server import Position

__all__ = ["Event", "Events"]

OPEN_SECONDS = 15.0
MAX_FRAME_BYTES = 1024 * 1024


class Events:
    """The events of a server, to be iterated over; it connects again by itself, for ever.

    Attributes:
        positions: where one stands in each stream, up to and with the event that was taken last. Kept and given to the
            next program, it goes on from there.
    """

    def __init__(
        self,
        address: str,
        *,
        path: str = "/ws/dashboard",
        cookie: str = "",
        ca: str | Path | None = None,
        positions: Mapping[str, Position] | None = None,
        ticks: bool = False,
    ) -> None:
        """Set out; the first connection is made when iteration begins.

        Args:
            address: of the server, such as https://learning.example.org.
            path: `/ws/dashboard`, `/ws/admin`, or `/ws` for what everybody may see.
            cookie: the session of a person, as `sessionid=…`; not needed for `/ws` and public dashboards.
            ca: a file with the certificates to trust, and no others; without it, the usual authorities.
            positions: where to go on; without it the first event is a `snapshot`.
            ticks: also give progress, of which the newest counts and some may be lost.

        Raises:
            BadUsage: the address is none, or the file holds no certificates.
            InsecureAddress: the cookie would cross the network in the clear.
        """
        self._server = Server(address)
        if cookie:
            self._server.require_safe("a session")
        self._certificates = trusted_certificates(self._server, Path(ca) if ca else None)
        self._path = path
        self._cookie = cookie
        self._ticks = ticks
        self._follower = Follower(dict(positions or {}))
        self._welcomed_at: float | None = None
        self._was_ever_welcome = False

    @property
    def positions(self) -> dict[str, Position]:
        return self._follower.standing()

    def __iter__(self) -> Iterator[Event]:
        """Give event after event, waiting for each.

        Raises:
            Barred: the server does not let this program in, for good.
            ServerUnreachable: what the server shows of itself is not trusted.
        """
        with Line() as line:
            attempt = 0
            while True:
                self._welcomed_at = None
                ending = yield from self._follow_once(line)
                delay = reconnect_delay(attempt, ending, random.random())
                if delay is None:
                    raise Barred(
                        f"The server {self._server.origin} does not tell this program anything",
                        f"{ending.reason} (close code {ending.code})",
                        "Sign in, and give the cookie of a session that has the role.",
                        code=ending.code,
                    )
                attempt = next_attempt(attempt, ending)
                time.sleep(delay)

    def _follow_once(self, line: Line) -> Generator[Event, None, Ending]:
        query = self._follower.query()
        address = self._server.origin.replace("http", "ws", 1) + self._path + (f"?{query}" if query else "")
        try:
            line.open(
                address,
                ssl=self._certificates,
                subprotocols=[Subprotocol(PROTOCOL)],
                # A cookie counts together with the origin of the server's own pages only.
                origin=Origin(self._server.origin) if self._cookie else None,
                additional_headers={"Cookie": self._cookie} if self._cookie else None,
                compression=None,
                proxy=None,
                open_timeout=OPEN_SECONDS,
                max_size=MAX_FRAME_BYTES,
            )
            return (yield from self._listen(line))
        except ConnectionClosed as error:
            return self._ending(error.rcvd.code if error.rcvd else LOST)
        except (Gap, TimeoutError, OSError, InvalidHandshake, InvalidURI) as error:
            self._refuse_strangers(error)
            return Ending(reason=str(error) or type(error).__name__, uptime=self._uptime())
        finally:
            line.close()

    def _refuse_strangers(self, error: Exception) -> None:
        # Later it may be a certificate that is about to be renewed.
        if isinstance(error, ssl.SSLCertVerificationError) and not self._was_ever_welcome:
            raise ServerUnreachable(
                f"The certificate of {self._server.origin} is not trusted",
                error.verify_message,
                "If it comes of an authority of your own, name that authority's file with ca=.",
            ) from error

    def _listen(self, line: Line) -> Generator[Event, None, Ending]:
        while True:
            # The server beats once in this time, a tenth later at most; then it is given up.
            text = line.receive(1.1 * self._follower.heartbeat_seconds + OPEN_SECONDS)
            self._welcomed_at = self._welcomed_at or time.monotonic()
            self._was_ever_welcome = True
            for event in self._follower.take(text):
                if self._ticks or not event.key:
                    yield event
            if self._follower.owes_heartbeat:
                self._follower.owes_heartbeat = False
                line.send(client.encode_message(client.Heartbeat()))

    def _ending(self, code: int) -> Ending:
        farewell = self._follower.farewell
        if farewell is None:
            return Ending(code, self._follower.refusal or "the connection was lost", self._uptime())
        wait = None if farewell.retry_after_ms is None else farewell.retry_after_ms / 1000
        return Ending(farewell.code if code == LOST else code, farewell.reason, self._uptime(), wait)

    def _uptime(self) -> float:
        return 0.0 if self._welcomed_at is None else time.monotonic() - self._welcomed_at
