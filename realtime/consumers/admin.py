"""Admins (`/ws/admin`): all that dashboards see, broadcasts to admins, and commands."""

from collections import deque

from edge.protocol import client
from edge.protocol.server import Result
from realtime.commands import run_command
from realtime.consumers.base import Refused
from realtime.consumers.people import PeopleConsumer
from realtime.database import query
from realtime.groups import Kind

IDS_KEPT = 1000
"""So many of a connection's last commands must have different ids."""


class AdminConsumer(PeopleConsumer):
    """An admin, who may also speak: `admin.broadcast`, and ask: `admin.statistics`."""

    kind = Kind.ADMIN

    async def connect(self) -> None:
        """Open the connection; no command has been given on it yet."""
        self._ids: deque[str] = deque(maxlen=IDS_KEPT)
        await super().connect()

    async def handle(self, message: client.Message, text: str) -> None:
        """Carry out a command; the same `idem` again answers the same."""
        if not isinstance(message, client.Command):
            await super().handle(message, text)
            return
        user_id = self.connection.principal.user_id
        if user_id is None:
            raise Refused("unauthorized", "commands need a signed-in person")
        self._check_id(message.id)
        await self.process.write_statistics()
        answer = await query(run_command, user_id=user_id, command=message, address=self.client_address)
        self.connection.say(Result(result=answer), id=message.id)

    def _check_id(self, id: str | None) -> None:
        # Else nobody could say which command a result is of.
        if id is None:
            raise Refused("invalid_message", "a command needs an `id`, which its result brings back")
        if id in self._ids:
            raise Refused("invalid_message", f"the id {id!r} was used for another command of this connection")
        self._ids.append(id)
