import pytest

from fl.roles import Role
from fl.visibility import ANYONE, Principal
from realtime.groups import Kind, follows_unasked, groups_of


@pytest.mark.parametrize(
    ("stream", "public", "groups"),
    [
        ("run:7", False, {"dashboard", "admin", "clients"}),
        ("run:7", True, {"dashboard", "admin", "clients", "general"}),
        ("system", False, {"dashboard", "admin"}),
        ("device:3", False, {"device.3", "admin"}),
        ("audience:general", False, {"general"}),
        ("audience:clients", False, {"clients"}),
        ("audience:nobody", False, set()),
        ("device:../x", False, set()),
        ("else", True, set()),
    ],
)
def test_an_event_is_sent_once_to_each_connection_type_that_may_see_it(stream, public, groups):
    assert set(groups_of(stream, public=public)) == groups


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("stream", ["run:1", "system", "device:3", "audience:admin", "audience:clients"])
def test_nobody_who_may_see_a_stream_is_outside_its_groups(stream, public):
    viewers = {
        Kind.DASHBOARD: Principal(role=Role.OPERATOR, user_id=1),
        Kind.ADMIN: Principal(role=Role.ADMIN, user_id=2),
        Kind.CLIENTS: Principal(device_id=3, tasks=frozenset({"linear"})),
        Kind.GENERAL: ANYONE,
    }
    groups = set(groups_of(stream, public=public))

    for kind, principal in viewers.items():
        own = {kind, f"device.{principal.device_id}"}
        sees = principal.sees(stream, task="linear", public=public)
        if sees and follows_unasked(kind, stream, principal.device_id):
            assert own & groups, (kind, stream)


def test_each_type_hears_the_broadcasts_to_itself_alone():
    assert follows_unasked(Kind.ADMIN, "audience:admin", None)
    assert not follows_unasked(Kind.ADMIN, "audience:dashboard", None)


def test_admins_follow_the_streams_of_devices_on_request_only():
    assert not follows_unasked(Kind.ADMIN, "device:3", None)
    assert follows_unasked(Kind.CLIENTS, "device:3", 3)
    assert not follows_unasked(Kind.CLIENTS, "device:4", 3)
