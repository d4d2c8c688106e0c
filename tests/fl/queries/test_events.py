"""All events page by page: what is asked for is found by SQL as the feed tells it, and nothing twice or never."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from edge.protocol import server
from fl import events, feed
from fl.models import Event
from fl.queries.event_filters import EventFilter, matching
from fl.queries.events import (
    EVENTS_FOR_A_PAGE,
    FEED_EVENTS,
    LINES_A_PAGE,
    Place,
    all_events,
    device_named,
    feed_events,
    page_of_events,
)
from fl.queries.positions import positions_of
from fl.roles import Role
from fl.visibility import Principal
from tests.builders import NOW, at, participant, started_run
from tests.fl.test_feed import STATUS, payloads
from tests.fl.views.answers import after_one_round

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER, user_id=1)
ADMIN = Principal(role=Role.ADMIN, user_id=1)
NEWEST = Place()


def record(payload, stream="system", now=NOW):
    with events.transaction():
        events.record(stream, payload, now)


def record_many(payloads, stream="system"):
    with events.transaction():
        for payload in payloads:
            events.record(stream, payload, NOW)


def note(title, **facts):
    return server.ErrorNotification(code="x", title=title, **facts)


def titles(page):
    return [line.told.title for line in page.lines]


def found(wanted, principal=VIEWER):
    return titles(page_of_events(principal, wanted, NEWEST))


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("severity", "tones"),
    [("", None), ("warnings", {"warn", "bad"}), ("errors", {"bad"})],
    ids=["all", "warnings", "errors"],
)
def test_events_are_found_by_the_tone_in_which_they_are_told(severity, tones):
    record_many(payloads(), stream="run:1")

    by_sql = set(matching(VIEWER, EventFilter(severity=severity)).values_list("seq", flat=True))

    lines = {event.seq: feed.LINES.get(feed.find_key(event.event, json.loads(event.data))) for event in log()}
    assert by_sql == {seq for seq, line in lines.items() if line and (tones is None or line.tone in tones)}
    assert 0 < len(by_sql) < len(lines)


def log():
    return Event.objects.order_by("pk")


def test_what_the_feed_does_not_tell_is_shown_raw_by_the_name_of_its_event():
    record(note("told"))
    record(server.ModelAggregation(run_id=1, task="t", round=1, phase="started", strategy="fedavg"), stream="run:1")

    assert found(EventFilter()) == ["told"]
    assert found(EventFilter(raw=True)) == ["model_aggregation", "told"]
    assert found(EventFilter(raw=True, severity="errors")) == ["told"]


def test_statuses_that_read_alike_are_told_once_and_each_of_them_raw():
    started = server.FlStatusUpdate(**STATUS, state="running", round_state="training")
    record_many([started, started, started], stream="run:1")

    assert found(EventFilter()) == ["Round 3 started"]
    assert found(EventFilter(raw=True)) == ["Round 3 started"] * 3


def test_a_runs_events_are_those_of_its_stream_and_those_that_name_it():
    record(note("own"), stream="run:4")
    record(note("names it", run_id=4, device_id=7))
    record(note("another's", run_id=44))
    record(note("nobody's"))

    assert found(EventFilter(run_id=4)) == ["names it", "own"]


def test_a_devices_events_are_those_that_name_it_and_for_admins_those_of_its_stream():
    record(server.DeviceStatus(device_id=7, name="clinic", state="pending", presence="offline"))
    record(note("by the way", device_id=7))
    record(note("another's", device_id=77))
    record(note("its own"), stream="device:7")

    assert found(EventFilter(device_id=7)) == ["by the way", "clinic waits for approval"]
    assert found(EventFilter(device_id=7), ADMIN) == ["its own", "by the way", "clinic waits for approval"]


def test_a_text_within_an_event_is_never_taken_for_a_field():
    record(note('it said "run_id":4, and "severity":"warning"', severity="info"))

    assert found(EventFilter(run_id=4)) == []
    assert found(EventFilter(severity="warnings")) == []
    assert len(found(EventFilter(text="it said"))) == 1


def test_events_are_found_by_what_they_hold_by_kind_and_by_time():
    record(note("Early"), now=at(0))
    record(note("middle", detail="50 % of it"), now=at(60))
    record(server.Broadcast(message="late", sender="ada", audiences=["general"]), "audience:general", now=at(120))

    assert found(EventFilter(text="EARLY")) == ["Early"]
    assert found(EventFilter(text="50 %")) == ["middle"]
    assert found(EventFilter(text="5_ %")) == []
    assert found(EventFilter(kind="broadcast")) == ["late"]
    assert found(EventFilter(since=at(60), until=at(120))) == ["middle"]


def test_nobody_finds_what_they_may_not_see():
    record(note("a device's own"), stream="device:7")
    record(server.Broadcast(message="for admins", sender="ada", audiences=["admin"]), "audience:admin")

    assert found(EventFilter(raw=True)) == []
    assert found(EventFilter(raw=True), Principal()) == []
    assert len(found(EventFilter(raw=True), ADMIN)) == 2


def test_a_payload_with_a_nul_in_it_hinders_no_search():
    record(note("odd", detail="a\0b"))

    assert found(EventFilter(severity="errors", run_id=None, text="odd")) == ["odd"]


def test_a_device_is_given_by_number_or_by_name():
    device = participant("clinic").device

    assert (device_named("clinic"), device_named(str(device.pk))) == (device.pk, device.pk)
    assert (device_named(""), device_named("nowhere")) == (None, 0)


# ── page by page ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def many():
    """More told events than fill three pages, some others between them; their titles, newest first."""
    count = 3 * LINES_A_PAGE + 20
    for number in range(count):
        untold = server.ModelAggregation(run_id=1, task="t", round=1, phase="started", strategy="fedavg")
        record_many([note(f"note {number}"), untold])
    return [f"note {number}" for number in reversed(range(count))]


def pages_back(wanted, place=NEWEST):
    page = page_of_events(VIEWER, wanted, place)
    yield page
    while page.older is not None:
        page = page_of_events(VIEWER, wanted, Place(before=page.older))
        yield page


def test_going_back_through_the_pages_shows_each_event_once(many):
    pages = list(pages_back(EventFilter()))

    assert [title for page in pages for title in titles(page)] == many
    assert len(pages) == 4
    assert [page.newer is None for page in pages] == [True, False, False, False]


def test_going_forth_again_leads_over_the_same_events_to_the_first_page(many):
    *_, oldest = pages_back(EventFilter())

    page, seen = oldest, [titles(oldest)]
    while page.newer is not None:
        page = page_of_events(VIEWER, EventFilter(), Place(after=page.newer))
        seen.append(titles(page))

    assert seen[-1] == many[:LINES_A_PAGE]
    assert {title for each in seen for title in each} == set(many)


def test_pages_are_as_long_as_they_can_be_though_most_events_are_not_told():
    started = server.FlStatusUpdate(**STATUS, state="running", round_state="training")
    record(note("the oldest"))
    record_many([started] * EVENTS_FOR_A_PAGE, stream="run:1")
    record(note("the newest"))

    pages = list(pages_back(EventFilter()))

    assert [title for page in pages for title in titles(page)].count("the oldest") == 1
    assert titles(pages[0]) == ["the newest", "Round 3 started"]


def test_an_event_is_shown_first_at_its_own_address_whether_it_is_told_or_not():
    record(note("older"))
    record(server.ModelAggregation(run_id=1, task="t", round=1, phase="started", strategy="fedavg"), stream="run:1")
    record(note("newer"))

    def at_its_address(stream, seq):
        return page_of_events(VIEWER, EventFilter(), Place(at=(stream, seq)))

    assert titles(at_its_address("run:1", 1)) == ["model_aggregation", "older"]
    assert titles(at_its_address("system", 1)) == ["older"]
    assert at_its_address("system", 1).newer is not None
    assert titles(at_its_address("system", 99)) == ["newer", "older"]


def test_an_address_of_an_event_that_one_may_not_see_is_that_of_the_newest():
    record(note("seen"))
    record(note("secret"), stream="device:7")

    assert titles(page_of_events(VIEWER, EventFilter(), Place(at=("device:7", 1)))) == ["seen"]


def test_a_page_takes_as_many_queries_whatever_there_is():
    def queries():
        with CaptureQueriesContext(connection) as captured:
            page_of_events(VIEWER, EventFilter(), NEWEST)
        return len(captured)

    record(note("one"))
    few = queries()
    after_one_round()
    record_many(note(f"note {number}") for number in range(300))

    assert queries() <= few <= 11


@pytest.fixture
def hurried(monkeypatch):
    """No more than one query for a page, which looks through seven events."""
    monkeypatch.setattr("fl.queries.events.EVENTS_AT_ONCE", 7)
    monkeypatch.setattr("fl.queries.events.LOOKING_SECONDS", 0)


def test_a_search_goes_as_far_as_its_time_lets_it_and_from_there_when_it_is_asked_to(hurried):
    record(note("needle"))
    record_many(note(f"hay {number}") for number in range(30))
    record(note("another needle"))

    pages = list(pages_back(EventFilter(text="needle")))
    page, forth = pages[-1], []
    while page.newer is not None:
        page = page_of_events(VIEWER, EventFilter(text="needle"), Place(after=page.newer))
        forth.append(titles(page))

    assert [titles(page) for page in pages] == [["another needle"], [], [], [], ["needle"]]
    assert [page.reached is not None for page in pages] == [True, True, True, True, False]
    assert forth[-1] == ["another needle"]
    assert len(forth) <= len(pages)


def test_what_was_deleted_from_the_log_costs_a_search_no_time(hurried):
    record(note("needle"))
    record_many(note(f"hay {number}") for number in range(50))
    record(note("the newest"))
    Event.objects.filter(data__contains="hay").delete()

    pages = list(pages_back(EventFilter(text="needle")))

    assert [titles(page) for page in pages] == [[], ["needle"]]
    assert [line.told.title for line in all_events(VIEWER, EventFilter())] == ["needle", "the newest"]


# ── the feed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_feed_has_the_newest_events_of_its_run_and_of_the_server_together():
    run, other = started_run(), started_run()
    record(server.Broadcast(message="noon", sender="ada", audiences=["dashboard"]), "audience:dashboard", now=at(10))
    for number in range(FEED_EVENTS):
        record(note(f"note {number}"), now=at(20 + number))
    record(note("of the run"), stream=run.stream, now=at(15))
    record(note("of another"), stream=other.stream, now=at(1000))

    feed_of_viewer = feed_events(positions_of(VIEWER, [run]), run)
    feed_of_anybody = feed_events(positions_of(Principal(), [run]), run)

    assert [event.seq for event in feed_of_viewer] == sorted(event.seq for event in feed_of_viewer)
    assert {event.stream_id for event in feed_of_viewer} == {"system"}
    assert len(feed_of_viewer) == FEED_EVENTS
    assert feed_of_anybody == []


def test_a_feed_of_few_events_has_all_of_them_in_the_order_of_the_clock():
    run = started_run()
    record(note("later"), now=at(30))
    record(note("of the run"), stream=run.stream, now=at(20))

    titles_of_notes = [json.loads(event.data).get("title") for event in feed_events(positions_of(VIEWER, [run]), run)]

    assert [title for title in titles_of_notes if title] == ["of the run", "later"]


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_events_are_those_of_the_pages_oldest_first(many, monkeypatch):
    monkeypatch.setattr("fl.queries.events.EVENTS_AT_ONCE", 7)

    assert [line.told.title for line in all_events(VIEWER, EventFilter())] == many[::-1]
    assert len(list(all_events(VIEWER, EventFilter(raw=True)))) == 2 * len(many)


def test_what_reads_alike_is_told_once_over_the_pieces_too(monkeypatch):
    monkeypatch.setattr("fl.queries.events.EVENTS_AT_ONCE", 2)
    started = server.FlStatusUpdate(**STATUS, state="running", round_state="training")
    record_many([started] * 5, stream="run:1")

    assert len(list(all_events(VIEWER, EventFilter()))) == 1


def test_what_comes_while_all_is_read_is_left_out():
    record_many([note("first"), note("second")])

    reading = all_events(VIEWER, EventFilter())
    first = next(reading)
    record(note("third"))

    assert [first.told.title, *(line.told.title for line in reading)] == ["first", "second"]
