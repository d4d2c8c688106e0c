"""Admins (`/ws/admin`): all that dashboards see, broadcasts to admins, and commands."""

from edge.protocol import client
from edge.protocol.server import Result
from realtime.commands import run_command
from realtime.consumers.base import Refused
from realtime.consumers.people import PeopleConsumer
from realtime.database import query
from realtime.groups import Kind


class AdminConsumer(PeopleConsumer):
    """An admin, who may also speak: `admin.broadcast`, and ask: `admin.statistics`."""

    kind = Kind.ADMIN

    async def handle(self, message: client.Message, text: str) -> None:
        """Carry out a command; the same `idem` again answers the same."""
        if not isinstance(message, client.Command):
            await super().handle(message, text)
            return
        user_id = self.connection.principal.user_id
        if user_id is None:
            raise Refused("unauthorized", "commands need a signed-in person")
        await self.process.write_statistics()
        answer = await query(run_command, user_id=user_id, command=message)
        self.connection.say(Result(result=answer), id=message.id)
