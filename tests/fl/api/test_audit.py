"""The audit log over REST, and that what is done over REST is in it."""

import pytest

from fl.models import AuditEntry
from fl.models.audit import Act, Door
from tests.builders import at, participant
from tests.fl.api.conftest import bearer, error_of
from tests.fl.noted import noted

pytestmark = pytest.mark.django_db

HERE = "192.0.2.7"
ADDRESS = "/api/v1/audit/"


def post(client, path, data=None, **headers):
    return client.post(f"/api/v1/{path}", data, REMOTE_ADDR=HERE, headers=headers)


# ── what is done over REST ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_to_runs_is_noted_once_each(operator):
    made = post(operator, "runs/", {"name": "winter", "task": "linear"}).json()
    for command in ("start", "pause", "resume", "stop"):
        assert post(operator, f"runs/{made['id']}/{command}/").status_code == 200

    assert noted() == [
        (f"run.{act}", "operator", f"{made['label']} winter", HERE, "rest")
        for act in ("create", "start", "pause", "resume", "stop")
    ]


def test_what_is_done_to_devices_is_noted_once_each(admin):
    device = participant("clinic", auto_approve=False).device

    post(admin, "enrollment-tokens/", {"label": "gateway"})
    for command in ("approve", "suspend", "reinstate", "revoke"):
        assert post(admin, f"devices/{device.pk}/{command}/").status_code == 200

    assert noted() == [
        ("token.issue", "admin", "gateway", HERE, "rest"),
        ("device.approve", "admin", "clinic", HERE, "rest"),
        ("device.suspend", "admin", "clinic", HERE, "rest"),
        ("device.reinstate", "admin", "clinic", HERE, "rest"),
        ("device.revoke", "admin", "clinic", HERE, "rest"),
    ]


def test_a_broadcast_is_noted(admin):
    post(admin, "broadcasts/", {"message": "noon", "audiences": ["admin"]})

    assert noted() == [("broadcast.send", "admin", "to admin", HERE, "rest")]


def test_a_command_that_is_sent_again_is_noted_once(operator):
    for _ in range(2):
        post(operator, "enrollment-tokens/", {"label": "gateway"}, **{"Idempotency-Key": "k"})

    assert len(noted()) == 1


def test_a_command_that_is_refused_is_not_noted(operator, viewer):
    made = post(operator, "runs/", {"name": "winter", "task": "linear"}).json()
    answers = [
        post(operator, f"runs/{made['id']}/pause/", **{"Idempotency-Key": "k"}),
        post(operator, "runs/", {"name": "winter", "task": "linear", "cohort_size": 1, "quorum": 2}),
        post(operator, "broadcasts/", {"message": "noon", "audiences": ["admin"]}),
        post(viewer, f"runs/{made['id']}/start/"),
    ]

    assert [answer.status_code for answer in answers] == [409, 422, 403, 403]
    assert [act for act, *_ in noted()] == ["run.create"]


# ── reading it ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def entries(admin):
    """Three entries, oldest first; signing in is none of them."""
    made = [
        ("ada", Act.RUN_CREATE, "r-0001 winter"),
        ("eve", Act.RUN_PAUSE, "r-0001 winter"),
        ("ada", Act.RUN_STOP, ""),
    ]
    return [
        AuditEntry.objects.create(
            at=at(number), person_name=name, act=act, subject=subject, door=Door.PAGE, address="2001:db8::1"
        )
        for number, (name, act, subject) in enumerate(made)
    ]


def read(client, query=""):
    response = client.get(f"{ADDRESS}?since=2030-01-01T12:00:00Z&{query}")
    assert response.status_code == 200, response.content
    return response.json()


def test_an_entry_says_all_there_is(admin, entries):
    entry = read(admin, "act=run.pause")["results"][0]

    assert entry == {
        "id": entries[1].pk,
        "at": "2030-01-01T12:00:01Z",
        "person": "eve",
        "act": "run.pause",
        "subject": "r-0001 winter",
        "subject_kind": "",
        "subject_id": "",
        "detail": "",
        "address": "2001:db8::1",
        "door": "page",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [2, 1, 0]),
        ("person=ada", [2, 0]),
        ("act=run.stop", [2]),
        ("subject=WINTER", [1, 0]),
        ("since=2030-01-01T12:00:01Z", [2, 1]),
        ("until=2030-01-01T12:00:01Z", [0]),
        ("person=ada&subject=winter", [0]),
        ("person=&subject=", [2, 1, 0]),
    ],
)
def test_it_is_filtered_and_newest_first(admin, entries, query, found):
    assert [row["id"] for row in read(admin, query)["results"]] == [entries[number].pk for number in found]


def test_it_is_cut_into_pages(admin, entries):
    page = read(admin, "page_size=2&page=2")

    assert (page["count"], page["next"]) == (3, None)
    assert [row["id"] for row in page["results"]] == [entries[0].pk]


@pytest.mark.parametrize(
    "query", ["act=nothing", "since=yesterday", "until=2030-02-31T00:00:00Z", "person=%00", "subject=" + "x" * 201]
)
def test_a_filter_that_cannot_be_is_refused(admin, query):
    response = admin.get(f"{ADDRESS}?{query}")

    assert (response.status_code, error_of(response)) == (422, "invalid")


def test_only_admins_read_it(anybody, viewer, operator, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert anybody.get(ADDRESS).status_code == 401
    assert viewer.get(ADDRESS).status_code == 403
    assert operator.get(ADDRESS).status_code == 403
    assert anybody.get(ADDRESS, headers=bearer(participant())).status_code == 403


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes_it(admin, method):
    assert getattr(admin, method)(ADDRESS).status_code == 405
