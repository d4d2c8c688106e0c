"""Commands on `/ws/admin`: each checks its arguments, calls one use case once for each `idem`, answers flat facts."""

from collections.abc import Callable

import msgspec
from django.contrib.auth.models import User
from django.utils import timezone

from edge.protocol.client import Command
from fl import audit
from fl.api.idempotency import Answer, do_once, request_hash
from fl.exceptions import Invalid, NotAllowed, NotFound
from fl.models.audit import Door
from fl.roles import Role, role_of
from realtime.broadcasts import BroadcastRequest, send
from realtime.statistics import connection_statistics

Facts = dict[str, int | float | str | bool | None]


def run_command(*, user_id: int, command: Command, address: str) -> Facts:
    """Carry out an admin's command and return its result.

    Args:
        address: where it comes from; empty where that is not known.

    Raises:
        NotFound: there is no such command.
        Invalid: the arguments are not what the command takes.
        NotAllowed: the person is no admin any more.
        IdempotencyConflict: `idem` came with another command before.
    """
    user = User.objects.get(pk=user_id)
    if role_of(user) < Role.ADMIN:
        raise NotAllowed("this needs the role admin")
    run = _COMMANDS.get(command.name)
    if run is None:
        raise NotFound(f"there is no command {command.name!r}; there are {', '.join(sorted(_COMMANDS))}")
    with audit.coming_by(Door.SOCKET, address):
        return run(user, command)


def _broadcast(user: User, command: Command) -> Facts:
    try:
        request = msgspec.convert(command.args, BroadcastRequest)
    except msgspec.ValidationError as error:
        raise Invalid(str(error), field="args") from error
    now = timezone.now()

    def say() -> Answer:
        return Answer(status=201, data=send(request, sender=user, now=now))

    hashed = request_hash(command.name, command.args)
    answer = do_once(user=user, key=command.idem, request_hash=hashed, now=now, command=say)
    return {"audiences": ", ".join(answer.data["audiences"]), "repeated": answer.repeated}


def _statistics(user: User, command: Command) -> Facts:
    figures = msgspec.to_builtins(connection_statistics(timezone.now()))
    by_type = {f"connections.{kind}": count for kind, count in figures.pop("connections").items()}
    return {**by_type, **figures}


_COMMANDS: dict[str, Callable[[User, Command], Facts]] = {
    "admin.broadcast": _broadcast,
    "admin.statistics": _statistics,
}
