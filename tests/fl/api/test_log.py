"""The log over REST."""

import pytest
from django.utils import timezone

from fl import runs
from fl.broadcasts import broadcast
from fl.models import Stream
from tests.builders import PLAN, participant, person
from tests.fl.api.conftest import bearer, error_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(operator):
    """A run with eight events."""
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    runs.start_run(run=run, now=timezone.now())
    for _ in range(3):
        runs.pause_run(run=run, now=timezone.now())
        runs.resume_run(run=run, now=timezone.now())
    assert Stream.objects.get(pk=run.stream).head == 8
    return run


def read(client, query, **options):
    response = client.get(f"/api/v1/events/?{query}", **options)
    assert response.status_code == 200, response.content
    return response.json()


def numbers(excerpt):
    return [event["seq"] for event in excerpt["events"]]


def test_a_stream_is_read_from_any_place_in_order(viewer, run):
    first = read(viewer, f"stream=run:{run.pk}&after=0&limit=3")
    second = read(viewer, f"stream=run:{run.pk}&after={first['next']}&limit=3")
    last = read(viewer, f"stream=run:{run.pk}&after={second['next']}&limit=3")

    assert [numbers(excerpt) for excerpt in (first, second, last)] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert last["next"] is None
    assert (first["head"], first["epoch"]) == (8, Stream.objects.get(pk=run.stream).epoch)


def test_without_a_place_the_newest_events_are_read(viewer, run):
    assert numbers(read(viewer, f"stream=run:{run.pk}&limit=2")) == [7, 8]


def test_after_the_newest_there_is_nothing(viewer, run):
    excerpt = read(viewer, f"stream=run:{run.pk}&after=8")

    assert (excerpt["events"], excerpt["next"]) == ([], None)


def test_an_event_carries_what_was_sent(viewer, run):
    event = read(viewer, f"stream=run:{run.pk}&after=0&limit=1")["events"][0]

    assert event["event"] == "fl_status_update"
    assert event["data"]["run_name"] == PLAN.name


@pytest.mark.parametrize("query", ["", "stream=system&after=-1", "stream=system&limit=0", "stream=system&limit=501"])
def test_a_place_that_cannot_be_is_refused(viewer, query):
    response = viewer.get(f"/api/v1/events/?{query}")

    assert (response.status_code, error_of(response)) == (422, "invalid")


def test_a_stream_that_one_may_not_see_is_as_one_that_does_not_exist(anybody, viewer, run):
    participant()

    for client, stream in ((anybody, run.stream), (anybody, "system"), (viewer, "device:1"), (viewer, "run:99")):
        response = client.get(f"/api/v1/events/?stream={stream}")

        assert (response.status_code, error_of(response)) == (404, "not_found"), stream


def test_a_device_reads_its_own_stream_and_the_runs_of_its_tasks(anybody, run):
    device = participant().connect(timezone.now())
    other = participant()
    headers = bearer(device)

    assert numbers(read(anybody, f"stream=run:{run.pk}", headers=headers))
    assert read(anybody, f"stream={device.device.stream}", headers=headers)["head"] == 0
    for stream in ("system", other.device.stream):
        assert anybody.get(f"/api/v1/events/?stream={stream}", headers=headers).status_code == 404


def test_everybody_reads_what_is_for_everybody(anybody):
    broadcast(message="hello", audiences=["general"], sender=person("ada", "admin"), now=timezone.now())

    (event,) = read(anybody, "stream=audience:general")["events"]

    assert event["data"]["message"] == "hello"


def test_the_list_of_streams_holds_those_that_one_may_see(anybody, viewer, run):
    participant()

    assert anybody.get("/api/v1/streams/").json()["results"] == []
    seen = {stream["name"]: stream["head"] for stream in viewer.get("/api/v1/streams/").json()["results"]}
    assert seen == {run.stream: 8, "system": 1}
