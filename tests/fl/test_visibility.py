"""Who may see which stream: every principal by every kind of stream, and the query agrees with the rule."""

import pytest
from django.contrib.auth.models import AnonymousUser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl.models import Device, Run, Stream
from fl.roles import Role
from fl.visibility import (
    ANYONE,
    AUDIENCES,
    Principal,
    principal_of_device,
    principal_of_user,
    runs_for,
    streams_for,
)
from tests.builders import participant, person, started_run

pytestmark = pytest.mark.django_db

PRINCIPALS = {
    "anybody": ANYONE,
    "a person without a role": Principal(user_id=1),
    "a viewer": Principal(role=Role.VIEWER, user_id=1),
    "an operator": Principal(role=Role.OPERATOR, user_id=1),
    "an admin": Principal(role=Role.ADMIN, user_id=1),
    "device 5": Principal(device_id=5, tasks=frozenset({"linear"})),
    "device 6, of other tasks": Principal(device_id=6, tasks=frozenset({"digits"})),
    "device 7, without tasks": Principal(device_id=7),
}
PEOPLE = {"a viewer", "an operator", "an admin"}
DEVICES = {"device 5", "device 6, of other tasks", "device 7, without tasks"}

# stream, labels → who sees it
SEEN = {
    ("run:1", "linear", False): PEOPLE | {"device 5"},
    ("run:2", "linear", True): set(PRINCIPALS),
    ("run:3", "digits", False): PEOPLE | {"device 6, of other tasks"},
    ("run:4", "", False): PEOPLE,
    ("system", "", False): PEOPLE,
    ("device:5", "", False): {"an admin", "device 5"},
    ("device:6", "", False): {"an admin", "device 6, of other tasks"},
    ("device:50", "", False): {"an admin"},
    ("device:None", "", False): {"an admin"},
    ("audience:dashboard", "", False): PEOPLE,
    ("audience:clients", "", False): DEVICES,
    ("audience:admin", "", False): {"an admin"},
    ("audience:general", "", False): set(PRINCIPALS),
    ("audience:others", "", False): set(),
    ("other:1", "", False): set(),
    ("", "", False): set(),
}


@pytest.mark.parametrize("who", PRINCIPALS)
@pytest.mark.parametrize(("stream", "task", "public"), SEEN)
def test_one_sees_a_stream_as_the_table_says(stream, task, public, who):
    assert PRINCIPALS[who].sees(stream, task=task, public=public) is (who in SEEN[stream, task, public])


@pytest.mark.parametrize("who", PRINCIPALS)
def test_the_query_gives_the_streams_of_the_table(who):
    Stream.objects.bulk_create(Stream(name=name, task=task, public=public) for name, task, public in SEEN)

    found = set(streams_for(PRINCIPALS[who]).values_list("name", flat=True))

    assert found == {name for (name, _, _), seers in SEEN.items() if who in seers}


@pytest.mark.parametrize("who", PRINCIPALS)
def test_nobody_sees_the_stream_of_a_run_in_the_trash(who):
    Stream.objects.create(name="run:1", task="linear", public=True, in_trash=True)

    assert not PRINCIPALS[who].sees("run:1", task="linear", public=True, in_trash=True)
    assert not streams_for(PRINCIPALS[who]).exists()


tasks = st.sampled_from(["linear", "digits", "fashion-mnist"])
principals = st.builds(
    Principal,
    role=st.sampled_from(Role),
    user_id=st.none() | st.integers(1, 3),
    device_id=st.none() | st.integers(1, 12),
    tasks=st.frozensets(tasks),
)
names = (
    st.integers(1, 12).map("run:{}".format)
    | st.integers(1, 12).map("device:{}".format)
    | st.sampled_from(["system", *(f"audience:{audience}" for audience in AUDIENCES)])
)
streams = st.builds(Stream, name=names, task=tasks | st.just(""), public=st.booleans(), in_trash=st.booleans())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(principals, st.lists(streams, max_size=8, unique_by=lambda stream: stream.name))
def test_the_query_agrees_with_the_rule_on_any_rows(db, principal, rows):
    Stream.objects.all().delete()
    for row in rows:
        # Only the streams of runs have labels.
        if not row.name.startswith("run:"):
            row.task, row.public, row.in_trash = "", False, False
    Stream.objects.bulk_create(rows)

    found = set(streams_for(principal).values_list("name", flat=True))

    assert found == {
        row.name for row in rows if principal.sees(row.name, task=row.task, public=row.public, in_trash=row.in_trash)
    }


# ── who one is ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["", "viewer", "operator", "admin"])
def test_a_person_looks_by_role(role):
    user = person("ada", role)

    assert principal_of_user(user) == Principal(role=Role[role.upper() or "NONE"], user_id=user.pk)


def test_where_the_dashboard_is_public_everybody_is_a_viewer_and_nobody_more(settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert principal_of_user(AnonymousUser()) == Principal(role=Role.VIEWER)
    assert principal_of_user(person("ada", "admin")).role is Role.ADMIN


def test_a_stranger_is_nobody():
    assert principal_of_user(AnonymousUser()) == ANYONE


def test_an_active_device_looks_by_the_tasks_that_it_offers():
    device = participant().connect().device

    assert principal_of_device(device) == Principal(device_id=device.pk, tasks=frozenset({"linear"}))


@pytest.mark.parametrize("state", ["pending", "suspended", "revoked"])
def test_a_device_that_is_not_active_sees_nothing_of_runs(state):
    device = participant().connect().device
    Device.objects.filter(pk=device.pk).update(state=state)
    device.refresh_from_db()

    assert principal_of_device(device) == Principal(device_id=device.pk)


@pytest.mark.parametrize("who", PRINCIPALS)
def test_one_sees_a_run_exactly_if_one_sees_its_stream(who):
    for changes in ({}, {"public": True}):
        started_run(**changes)
    Run.objects.filter(pk=started_run().pk).update(task="digits")
    Stream.objects.filter(pk=Run.objects.latest("pk").stream).update(task="digits")

    visible = set(streams_for(PRINCIPALS[who]).values_list("name", flat=True))

    assert {run.stream for run in runs_for(PRINCIPALS[who])} == {name for name in visible if name.startswith("run:")}
