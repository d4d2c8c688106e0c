"""Who may see which streams: one rule for pages, REST, sockets, resume and snapshot alike.

run:<id>            people with a role; devices that offer its task; everybody where the run is public;
                    nobody while it is in the trash
system              people with a role (devices and errors)
device:<id>         that device; admins
audience:dashboard  people with a role            audience:clients   devices
audience:admin      admins                        audience:general   everybody
"""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Q, QuerySet

from fl.events import SYSTEM
from fl.lifecycle import OPEN_ASSIGNMENTS, DeviceState
from fl.models import Device, GlobalModel, Run, Stream
from fl.roles import Role, role_of

AUDIENCES = ("dashboard", "clients", "admin", "general")


def audience_stream(audience: str) -> str:
    """Return the stream of the broadcasts to one connection type."""
    return f"audience:{audience}"


@dataclass(frozen=True)
class Principal:
    """The one who looks: a person by role, a device by its tasks, or nobody in particular (`role` NONE, no device)."""

    role: Role = Role.NONE
    user_id: int | None = None
    device_id: int | None = None
    tasks: frozenset[str] = frozenset()

    def sees(self, stream: str, *, task: str = "", public: bool = False, in_trash: bool = False) -> bool:
        """Say whether this one may see a stream; `task`, `public` and `in_trash` are the labels of a run's stream."""
        kind, _, rest = stream.partition(":")
        match kind:
            case "run" if in_trash:
                return False
            case "run":
                return public or self.role >= Role.VIEWER or (self.device_id is not None and task in self.tasks)
            case "system":
                return self.role >= Role.VIEWER
            case "device":
                return self.role >= Role.ADMIN or (self.device_id is not None and rest == str(self.device_id))
            case "audience":
                return self._hears(rest)
            case _:
                return False

    def _hears(self, audience: str) -> bool:
        match audience:
            case "dashboard":
                return self.role >= Role.VIEWER
            case "admin":
                return self.role >= Role.ADMIN
            case "clients":
                return self.device_id is not None
            case _:
                return audience == "general"


ANYONE = Principal()


def principal_of_user(user: AbstractBaseUser | AnonymousUser) -> Principal:
    """Return a person as one who looks; where the dashboard is public, everybody is at least a viewer."""
    role = role_of(user)
    if settings.QFLARE_PUBLIC_DASHBOARD:
        role = max(role, Role.VIEWER)
    return Principal(role=role, user_id=user.pk)


def principal_of_device(device: Device) -> Principal:
    """Return a device as one who looks; one that is not active sees nothing of runs."""
    if device.state != DeviceState.ACTIVE:
        return Principal(device_id=device.pk)
    return Principal(device_id=device.pk, tasks=frozenset(device.tasks.values_list("task", flat=True)))


def streams_for(principal: Principal) -> QuerySet[Stream]:
    """Return the streams that exist and that this one may see."""
    seen = Q(name=audience_stream("general")) | Q(name__startswith="run:", public=True)
    if principal.role >= Role.VIEWER:
        seen |= Q(name__startswith="run:") | Q(name__in=[SYSTEM, audience_stream("dashboard")])
    if principal.role >= Role.ADMIN:
        seen |= Q(name__startswith="device:") | Q(name=audience_stream("admin"))
    if principal.device_id is not None:
        seen |= Q(name__in=[f"device:{principal.device_id}", audience_stream("clients")])
        seen |= Q(name__startswith="run:", task__in=principal.tasks)
    return Stream.objects.filter(seen, in_trash=False)


def runs_for(principal: Principal) -> QuerySet[Run]:
    """Return the runs that this one may see."""
    return _seen_by(principal).filter(deleted_at__isnull=True)


def trash_for(principal: Principal) -> QuerySet[Run]:
    """Return the runs in the trash that this one could see before; what may be done with them depends on the role."""
    return _seen_by(principal).filter(deleted_at__isnull=False)


def _seen_by(principal: Principal) -> QuerySet[Run]:
    if principal.role >= Role.VIEWER:
        return Run.objects.all()
    seen = Q(public=True)
    if principal.device_id is not None:
        seen |= Q(task__in=principal.tasks)
    return Run.objects.filter(seen)


def models_for(device: Device) -> QuerySet[GlobalModel]:
    """Return the models whose weights a device may have: what its runs have published, and its assignments' bases."""
    published = Q(published_at__isnull=False, run__in=runs_for(principal_of_device(device)))
    base = Q(rounds_from__assignments__device=device, rounds_from__assignments__state__in=OPEN_ASSIGNMENTS)
    return GlobalModel.objects.filter(published | base)
