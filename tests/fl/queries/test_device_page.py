"""One device: its history equals its events, its rounds are told with reasons, and its own stream is for admins."""

import pytest
from django.db import connection

from fl import devices
from fl.exceptions import NotFound, UpdateRefused
from fl.models import Event
from fl.queries.device_page import SHOWN_CHANGES, _statuses_of, device_view
from fl.roles import Role
from fl.visibility import Principal
from tests.builders import NOW, at, fleet, participant, started_run, step

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)
HOUR = 3600


def view_of(device, now, *, principal=VIEWER, hours=24, page=1):
    return device_view(principal, device.pk, hours=hours, page=page, now=now)


def drawn(view):
    return [(span.presence, span.start, span.end) for span in view.history.spans]


def come_and_go(device, *, came, went):
    device.connect(at(came))
    devices.disconnected(connection_id=device.connection_id, now=at(went))
    devices.expire_leases(now=at(went + 20))


def test_the_history_is_what_the_events_tell():
    device = participant("shed")
    participant("another").connect(at(5))
    come_and_go(device, came=10, went=80)
    device.connect(at(200))

    view = view_of(device.device, at(300))

    since = view.history.since
    told = Event.objects.filter(event="device_status", data__contains='"name":"shed"').order_by("seq")
    moments = [event.timestamp for event in told]
    assert moments == [NOW, at(10), at(100), at(200)]
    assert drawn(view) == [
        ("unknown", since, NOW),
        ("offline", NOW, at(10)),
        ("online", at(10), at(100)),
        ("offline", at(100), at(200)),
        ("online", at(200), at(300)),
    ]
    assert [change.at for change in view.history.changes] == moments[::-1]


def test_what_was_before_the_strip_begins_is_known_from_the_last_event_before():
    device = participant("shed")
    come_and_go(device, came=0, went=3 * HOUR)

    view = view_of(device.device, at(26 * HOUR))

    assert [(kind, end) for kind, _, end in drawn(view)] == [("online", at(3 * HOUR + 20)), ("offline", at(26 * HOUR))]


def test_a_week_reaches_back_further_than_a_day():
    device = participant("shed")
    come_and_go(device, came=0, went=HOUR)
    now = at(100 * HOUR)

    assert [kind for kind, _, _ in drawn(view_of(device.device, now))] == ["offline"]
    week = view_of(device.device, now, hours=168)
    assert [kind for kind, _, _ in drawn(week)] == ["unknown", "online", "offline"]


def test_a_new_name_is_no_change_of_connection():
    device = participant("shed").connect(at(1)).device
    devices.rename_device(device=device, name="ward", now=at(5), by=None)

    view = view_of(device, at(10))

    assert drawn(view)[-1] == ("online", at(1), at(10))
    assert len(view.history.changes) == 2


def test_changes_say_why_and_only_the_newest_are_shown():
    device = participant("shed").device
    for second in range(SHOWN_CHANGES):
        devices.suspend(device=device, reason=f"noise {second}", now=at(2 * second + 1), by=None)
        devices.reinstate(device=device, now=at(2 * second + 2), by=None)

    history = view_of(device, at(100)).history

    assert history.total == 2 * SHOWN_CHANGES + 1
    assert len(history.changes) == SHOWN_CHANGES
    assert history.changes[1].reason == f"noise {SHOWN_CHANGES - 1}"


def test_the_numbers_of_devices_are_not_mixed_up():
    one = participant("one").device
    of_another = f'{{"device_id":{one.pk}1,"name":"x","state":"active"}}'
    Event.objects.filter(event="device_status").update(data=of_another)

    assert view_of(one, at(1)).history.changes == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the plan is SQLite's")
def test_statuses_are_found_by_their_own_index():
    told = _statuses_of(participant("shed").device)
    in_the_strip = told.filter(timestamp__gte=NOW).order_by("timestamp", "seq")
    before_it = told.filter(timestamp__lt=NOW).order_by("-timestamp", "-seq")

    for query in (in_the_strip, before_it):
        assert "event_device_status_at" in query.explain()


def test_rounds_are_told_with_what_became_of_them():
    good, bad = fleet(2)
    run = started_run(cohort_size=2, quorum=1)
    step(run)
    good.send(metrics={"loss": 0.25, "accuracy": 0.5}, now=at(7))
    with pytest.raises(UpdateRefused):
        bad.send(data=b"no weights", now=at(8))

    (accepted,) = view_of(good.device, at(10)).rounds
    refused = view_of(bad.device, at(10))

    assert (accepted.run_id, accepted.round, accepted.state, accepted.reason) == (run.pk, 1, "accepted", "")
    assert (accepted.loss, accepted.accuracy) == (0.25, 0.5)
    assert accepted.num_examples == good.assignment().update.num_examples
    assert accepted.norm > 0
    assert accepted.duration_seconds == 7
    (rejected,) = refused.rounds
    assert rejected.state == "rejected"
    assert rejected.reason
    assert (rejected.loss, rejected.norm, rejected.num_examples) == (None, None, None)
    assert refused.updates == []
    assert refused.attention == (f"its last update was rejected: {rejected.reason}",)


def test_events_are_those_about_the_device_in_the_servers_newest():
    one, other = participant("one"), participant("other")
    devices.suspend(device=other.device, reason="noise", now=at(1), by=None)

    told = view_of(one.device, at(2)).events

    assert [event.event for event in told] == ["device_status"]
    assert '"name":"one"' in told[0].data


def test_a_devices_own_stream_is_for_admins():
    device, _ = fleet(2)
    run = started_run(cohort_size=2)
    step(run)

    shown = view_of(device.device, at(1), principal=Principal(role=Role.ADMIN)).own_events

    assert [event.event for event in shown] == ["assignment"]
    assert view_of(device.device, at(1), principal=Principal(role=Role.OPERATOR)).own_events is None


def test_a_device_that_is_not_there_is_not_found():
    with pytest.raises(NotFound):
        device_view(VIEWER, 99, hours=24, page=1, now=NOW)
