"""Who is let in by one process: how many in all, from one address, for one person, and how fast."""

import asyncio
import logging
import resource
from collections import Counter
from typing import TypeVar

from django.conf import settings

from fl.addresses import counted_as
from realtime.limits import TokenBucket

logger = logging.getLogger(__name__)

T = TypeVar("T")

CROWDED = "too many connect at once"
"""Why one is not let in who may come again soon."""

RESERVED_FILES = 200
"""What a process opens beside its sockets: database, files of weights, libraries, pipes."""


class Door:
    """Counts the connections of a process; one that is refused is told why, and is not counted."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        """Whose address each connection counts for: nobody's (empty) for a device that has proved its key."""
        self._people: dict[str, int] = {}
        self._by_address: Counter[str] = Counter()
        self._by_person: Counter[int] = Counter()
        self._handshakes = TokenBucket(
            settings.QFLARE_HANDSHAKES_PER_SECOND,
            settings.QFLARE_HANDSHAKE_BURST,
            asyncio.get_running_loop().time(),
        )
        self._silent_until = 0.0

    def __len__(self) -> int:
        return len(self._addresses)

    def enter(self, connection_id: str, address: str) -> str:
        """Count a connection in; return why it is not let in, or an empty text."""
        name, now = counted_as(address), asyncio.get_running_loop().time()
        why = self._why_not(name, now)
        if not why:
            self._addresses[connection_id] = name
            self._by_address[name] += 1
        elif now >= self._silent_until:
            # Once a minute, since whoever is refused comes again and again.
            self._silent_until = now + 60
            logger.warning("a connection from %s is not let in: %s", address or "nowhere", why)
        return why

    def _why_not(self, name: str, now: float) -> str:
        if len(self) >= settings.QFLARE_MAX_CONNECTIONS:
            return "this server has as many connections as it takes"
        if name and self._by_address[name] >= settings.QFLARE_MAX_CONNECTIONS_PER_ADDRESS:
            return "there are as many connections from this address as the server takes"
        return CROWDED if self._handshakes.take(now) else ""

    def is_person(self, connection_id: str, user_id: int) -> str:
        """Count a connection for a person too; return why it is not let in, or an empty text."""
        if self._by_person[user_id] >= settings.QFLARE_MAX_CONNECTIONS_PER_USER:
            return "this person has as many connections as the server takes"
        self._people[connection_id] = user_id
        self._by_person[user_id] += 1
        return ""

    def is_device(self, connection_id: str) -> None:
        """Count a connection for its address no more: a fleet of devices that proved their keys may share one."""
        self._give_back(self._by_address, self._addresses.get(connection_id, ""))
        self._addresses[connection_id] = ""
        self._by_address[""] += 1

    def leave(self, connection_id: str) -> None:
        """Count a connection out."""
        name = self._addresses.pop(connection_id, None)
        if name is not None:
            self._give_back(self._by_address, name)
        user_id = self._people.pop(connection_id, None)
        if user_id is not None:
            self._give_back(self._by_person, user_id)

    @staticmethod
    def _give_back(counter: Counter[T], name: T) -> None:
        counter[name] -= 1
        if counter[name] <= 0:
            del counter[name]


def raise_open_files() -> int:
    """Let this process open as many files, and so sockets, as the system allows; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        logger.info("this process may open %d files now, %d before", hard, soft)
    if hard != resource.RLIM_INFINITY and hard < settings.QFLARE_MAX_CONNECTIONS + RESERVED_FILES:
        logger.warning(
            "this process may open %d files, too few for QFLARE_MAX_CONNECTIONS=%d: "
            "raise the hard limit (ulimit -Hn, LimitNOFILE), or lower the setting",
            hard,
            settings.QFLARE_MAX_CONNECTIONS,
        )
    return hard
