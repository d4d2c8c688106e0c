"""What dashboards, admins and anybody have in common: they come with a browser, by origin and session."""

import logging

import msgspec

from edge.protocol.close_codes import CloseCode
from edge.protocol.server import Welcome
from fl.exceptions import Unauthenticated
from realtime.authentication import Person, header, origin_is_allowed, session_digest
from realtime.consumers.base import Consumer
from realtime.groups import user_group
from realtime.opening import Plan

logger = logging.getLogger(__name__)


class PeopleConsumer(Consumer):
    """A browser's connection, or that of a program that acts for a person.

    A page must be of an allowed origin. A program has none and is let in, but its cookie is not looked at: only a
    browser sends a cookie that its page does not know, and a browser always says where the page is from.
    """

    def may_come_in(self) -> bool:
        """Refuse pages of foreign origins, and say so in the log."""
        host = header(self.scope["headers"], b"host")
        if not self.origin or origin_is_allowed(self.origin, host, is_encrypted=self.scope.get("scheme") == "wss"):
            return True
        logger.warning(
            "refused %s from %s: the origin %r is neither %r nor in QFLARE_ALLOWED_ORIGINS",
            self.scope["path"],
            self.address,
            self.origin,
            host,
        )
        return False

    async def connect(self) -> None:
        """Look whose session it is, and open the connection."""
        person = await self._person()
        if person is None:
            return
        user_id = person.principal.user_id
        if user_id is not None and (why := self.process.door.is_person(self.connection.id, user_id)):
            self.connection.close(CloseCode.TOO_MANY, why)
            return
        self.connection.principal = person.principal
        self.connection.session = session_digest(person.session_key)
        self.process.people[self.connection.id] = person

        def welcome(plan: Plan) -> Welcome:
            return msgspec.structs.replace(self.welcome_to(plan), user=person.name, roles=person.roles)

        groups = [user_group(user_id)] if user_id is not None else []
        await self.open(self.positions_in_url(), welcome, *groups)

    async def _person(self) -> Person | None:
        """Return who a page's cookie is for; None where it was given up meanwhile."""
        cookie = header(self.scope["headers"], b"cookie")
        try:
            return await self.process.who.ask((self.kind, cookie if self.origin else ""), self.is_wanted)
        except Unauthenticated:
            if cookie and not self.origin:
                logger.warning(
                    "refused %s from %s: its cookie does not count, since it came without an origin",
                    self.scope["path"],
                    self.address,
                )
            raise
