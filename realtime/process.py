"""What one server process keeps for its sockets: the hub, and the work that comes round by the clock.

There is one for each event loop, made at the first connection, since not every server tells an application of its
start.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

from django.conf import settings
from django.utils import timezone

from edge.protocol.close_codes import CloseCode
from fl import devices, histories, notifications
from fl.visibility import Principal
from realtime import authentication, layer_outages, opening, statistics
from realtime.authentication import Person, Standing
from realtime.checks import layer_is_in_memory
from realtime.close_codes import DUPLICATE_IDENTITY, close_code_of
from realtime.connection import Connection
from realtime.database import THREADS, query
from realtime.door import CROWDED, Door, raise_open_files
from realtime.groups import Kind
from realtime.hub import Hub
from realtime.publishing import use_loop
from realtime.tasks import end
from realtime.timers import SharedTimers
from realtime.together import Together
from realtime.watch import LayerWatch

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 2.0
TURNS = 120
"""Into how many turns the time between two heartbeats is cut; what comes due in one is done together."""


class Process:
    """The hub of this process, who its connections are, and their clockwork."""

    def __init__(self) -> None:
        self.instance = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.hub = Hub(self._recheck_group)
        self.watch = LayerWatch(self.hub, self)
        self.door = Door()
        # Those who come in ask no more at once than the database can be asked.
        turn = asyncio.Semaphore(THREADS)
        self.who = Together(authentication.people_of, turn)
        """Who the cookies of those who come in are for."""
        self.plans = Together(opening.plans, turn)
        """How those who come in take up their streams."""
        self.timers = SharedTimers(settings.QFLARE_HEARTBEAT_SECONDS / TURNS)
        """What connections have to do by the clock."""
        self.connections: dict[str, Connection] = {}
        """Those that were let in, by their ids; the hub has them only once it is known who they are."""
        self.people: dict[str, Person] = {}
        """The person at each connection, by its id."""
        self.devices: dict[str, int] = {}
        """The device at each connection, by its id."""
        self.heard: set[str] = set()
        """Connections of devices that were heard from since their leases were last renewed."""
        self.acknowledged: dict[int, int] = {}
        """How far devices say that they know their own streams, by device, since this was last written."""
        self.started_at = timezone.now()
        self._rates = statistics.Rates(asyncio.get_running_loop().time())
        self._clockwork: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._told_of_others = False
        self._written: asyncio.Task[list[str]] | None = None
        """The newest row of statistics, written or being written."""
        self._rechecked_at = asyncio.get_running_loop().time()
        self._looked_at = 0
        """How many events had been heard of when the streams' heads were last written down."""

    def start(self) -> None:
        """Make room for sockets, and start the work that comes round by the clock."""
        raise_open_files()
        if not layer_is_in_memory():
            self._come_round(settings.QFLARE_POLL_SECONDS, self.watch.look)
        lease_seconds = min(30.0, settings.QFLARE_LEASE_SECONDS / 4)
        for seconds, work in (
            (settings.QFLARE_POLL_SECONDS, self.hub.poll),
            (settings.QFLARE_POLL_SECONDS, self._look_at_histories),
            (settings.QFLARE_STALL_SECONDS / 5, self._end_stalled),
            (lease_seconds, self._renew_leases),
            (settings.QFLARE_ACKNOWLEDGE_SECONDS, self.write_acknowledged),
            (settings.QFLARE_RECHECK_SECONDS, self.recheck),
            (settings.QFLARE_STATISTICS_SECONDS, self._write_statistics),
            (max(settings.QFLARE_EQUAL_ERRORS_SECONDS, settings.QFLARE_POLL_SECONDS), self._tell_counted),
            (settings.QFLARE_REJOIN_SECONDS, self.hub.rejoin),
        ):
            self._come_round(seconds, work)

    def _come_round(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        name = f"every {seconds:g} s: {work.__name__}"
        self._clockwork.append(asyncio.create_task(_every(seconds, work), name=name))

    def let_in(self, connection: Connection, address: str) -> bool:
        """Count a connection in, or close it and say why; return whether it is let in."""
        if self._is_closing:
            connection.close(CloseCode.RESTARTING, retry_after_ms=retry_ms())
            return False
        if why := self.door.enter(connection.id, address):
            connection.close(CloseCode.TOO_MANY, why, retry_after_ms=retry_ms() if why == CROWDED else None)
            return False
        self.connections[connection.id] = connection
        return True

    async def close_all(self) -> None:
        """Tell every connection that the server restarts, and wait a little until they are closed."""
        self._is_closing = True
        connections = list(self.connections.values())
        for connection in connections:
            connection.close(CloseCode.RESTARTING, retry_after_ms=retry_ms())
        waiting = [asyncio.ensure_future(connection.finished()) for connection in connections]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=CLOSING_SECONDS)
            for wait in late:
                wait.cancel()

    async def stop(self) -> None:
        """Stop the clockwork, leave the layer, and take back the row of this process."""
        await end(self._clockwork)
        await self.who.stop()
        await self.plans.stop()
        await self.watch.stop()
        await self.hub.stop()
        _processes.pop(asyncio.get_running_loop(), None)
        try:
            await self.write_acknowledged()
            await query(histories.look)
            if self._written is not None:
                # Its thread goes on, and would write the row after it is taken back.
                await asyncio.wait([self._written])
            await query(statistics.forget, self.instance)
        except Exception:
            # The end must not wait for a database that is away: devices are told again what they acknowledged, and the
            # row of this process runs out.
            logger.exception("the last words of this process could not be written")

    # ── the channel layer ─────────────────────────────────────────────────────────────────────────────────────────────

    async def layer_is_away(self, why: str) -> None:
        """Tell people that the channel layer is away, unless another process has told of this outage."""
        await query(
            layer_outages.begin, instance=self.instance, started_at=self.started_at, why=why, now=timezone.now()
        )

    async def layer_is_back(self) -> bool:
        """Tell people that it is back, once it is for all processes; say whether it is."""
        return await query(layer_outages.end, instance=self.instance, now=timezone.now())

    # ── people and devices, looked at again ───────────────────────────────────────────────────────────────────────────

    async def recheck(self) -> None:
        """Look at everybody who is connected: sessions, roles and devices, in a handful of queries.

        Where the database cannot be asked, people stay on trust for QFLARE_TRUST_SECONDS, and then have to come again.
        """
        loop = asyncio.get_running_loop()
        now, trusted_until = loop.time(), self._rechecked_at + settings.QFLARE_TRUST_SECONDS
        signed_in = self.hub.connections(Kind.DASHBOARD, Kind.ADMIN)
        try:
            # A database that hangs neither answers nor fails.
            async with asyncio.timeout_at(max(trusted_until, now + settings.QFLARE_RECHECK_SECONDS)):
                await self._recheck_people(signed_in)
        except Exception:
            if loop.time() >= trusted_until:
                for connection in self._signed_in(signed_in):
                    connection.close(
                        CloseCode.EXPIRED, "for too long nobody could say whether the session is still open"
                    )
            raise
        self._rechecked_at = now
        await self._recheck_devices(frozenset())

    async def _recheck_group(self, group: str) -> None:
        await self._recheck_people(self.hub.members(group))

    async def _recheck_people(self, connections: list[Connection]) -> None:
        signed_in = self._signed_in(connections)
        if not signed_in:
            return
        people = [self.people[one.id] for one in signed_in]
        user_ids = {person.principal.user_id for person in people if person.principal.user_id is not None}
        keys = {person.session_key for person in people}
        standing = await query(authentication.standing_of, user_ids, keys, timezone.now())
        for connection in signed_in:
            self._judge(connection, standing)

    def _signed_in(self, connections: list[Connection]) -> list[Connection]:
        return [one for one in connections if one.id in self.people and self.people[one.id].session_key]

    def _judge(self, connection: Connection, standing: Standing) -> None:
        person = self.people.get(connection.id)
        if person is None:
            return  # it left while the database was asked
        user_id = person.principal.user_id or 0
        digest = standing.password_digests.get(user_id)
        if digest is None or person.session_key not in standing.sessions:
            connection.close(CloseCode.EXPIRED, "the session has ended")
            return
        if digest != person.password_digest:
            connection.close(CloseCode.EXPIRED, "the password was changed")
            return
        principal = standing.principals[connection.kind, user_id]
        if not isinstance(principal, Principal):
            connection.close(close_code_of(principal), principal.message)
        elif principal != connection.principal:
            self.people[connection.id] = replace(person, principal=principal)
            connection.become(principal)

    async def _recheck_devices(self, heard: Collection[str]) -> None:
        """Look at all devices here; those heard from that have no lease any more get one again."""
        if not self.devices:
            return
        standing = await query(authentication.device_standing_of, dict(self.devices))
        for connection in self.hub.connections(Kind.CLIENTS):
            if code := standing.ends.get(connection.id):
                connection.close(code, DUPLICATE_IDENTITY if code is CloseCode.TOO_MANY else "")
        newest = {device_id: connection_id for connection_id, device_id in self.devices.items()}
        alive = {pk: newest[pk] for pk in standing.lapsed if newest.get(pk) in heard}
        if alive:
            await query(devices.still_connected, connections=alive, instance=self.instance, now=timezone.now())

    async def _look_at_histories(self) -> None:
        if self.hub.counters.events != self._looked_at:
            self._looked_at = self.hub.counters.events
            await query(histories.look)

    async def _renew_leases(self) -> None:
        heard, self.heard = self.heard & self.devices.keys(), set()
        try:
            if heard:
                await query(devices.heard_from, connection_ids=sorted(heard), now=timezone.now())
            # The layer tells of a newer connection elsewhere at once; where it is away, this does.
            await self._recheck_devices(heard)
        except Exception:
            # Who was heard while the database was away is alive when it is back.
            self.heard |= heard
            raise

    async def write_acknowledged(self) -> None:
        """Write what devices have acknowledged; should that be lost, they are told again what they know already."""
        acknowledged, self.acknowledged = self.acknowledged, {}
        if acknowledged:
            await query(devices.acknowledge, seqs=acknowledged)

    # ── transport and statistics ──────────────────────────────────────────────────────────────────────────────────────

    async def _tell_counted(self) -> None:
        # Coordinators do too, and sooner, but there may be none.
        await query(notifications.tell_counted, now=timezone.now())

    async def _end_stalled(self) -> None:
        now, patience = asyncio.get_running_loop().time(), settings.QFLARE_STALL_SECONDS
        for connection in list(self.connections.values()):
            since = None if connection.is_watched else connection.sending_since
            if since is not None and now - since > patience and connection.closed_with is not CloseCode.TOO_SLOW:
                logger.info("%s %s took nothing for %g s and is ended", connection.kind, connection.id, patience)
                connection.abort(CloseCode.TOO_SLOW)

    async def _write_statistics(self) -> None:
        figures = statistics.figures_of(self.hub, self._rates, asyncio.get_running_loop().time())
        write = partial(
            statistics.write, instance=self.instance, started_at=self.started_at, figures=figures, now=timezone.now()
        )
        self._written = asyncio.create_task(query(write), name="a row of statistics")
        others = await asyncio.shield(self._written)
        if others and layer_is_in_memory() and not self._told_of_others:
            # Known only now: which processes share a database is nowhere written but in it.
            self._told_of_others = True
            logger.warning(
                "%s serves from the same database, but the channel layer is in memory: what happens there is told here "
                "up to %g s late, progress not at all. Set REDIS_URL for all processes, or run one.",
                ", ".join(others),
                settings.QFLARE_POLL_SECONDS,
            )

    async def write_statistics(self) -> None:
        """Write this process's row now, so that a reader finds it as it is."""
        await self._write_statistics()


def retry_ms() -> int:
    """Return when one of many clients is to come back, so that not all come at once."""
    first, last = (round(1000 * seconds) for seconds in settings.QFLARE_RETURN_SECONDS)
    return first + secrets.randbelow(last - first + 1)


_processes: WeakKeyDictionary[asyncio.AbstractEventLoop, Process] = WeakKeyDictionary()


def this_process() -> Process:
    """Return what the running loop keeps for its sockets, starting it at the first call."""
    loop = asyncio.get_running_loop()
    process = _processes.get(loop)
    if process is None:
        use_loop(loop)
        process = _processes[loop] = Process()
        process.start()
    return process


def running_process() -> Process | None:
    """Return what the running loop keeps for its sockets, if it has had any."""
    return _processes.get(asyncio.get_running_loop())


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            # The database may be away; the next turn tries again.
            logger.exception("%s failed; it is tried again in %g s", work.__name__, seconds)
