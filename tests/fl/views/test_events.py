"""The page of all events: what an address asks for, what it shows without scripts, and files of it."""

import asyncio
import csv
import io
import json
import re

import pytest
from django.urls import reverse

from edge.protocol import server
from fl import events
from fl.models import Event, Stream
from fl.views.export import LINES_AT_ONCE
from tests.asgi import application
from tests.builders import NOW, at, participant, person
from tests.fl.views.answers import after_one_round, state_of, text_of
from tests.fl.views.test_doors import InlineFinder

pytestmark = pytest.mark.django_db

ADDRESS = "/events/"


def record(title, stream="system", now=NOW, **facts):
    with events.transaction():
        events.record(stream, server.ErrorNotification(code="x", title=title, **facts), now)


def titles(response):
    return [line.told.title for line in response.context["found"].lines]


def body(response):
    return b"".join(response.streaming_content).decode()


# ── who, and what ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_for_viewers_and_for_everybody_where_the_dashboard_is_public(client, settings):
    assert client.get(ADDRESS).url == "/login/?next=/events/"
    settings.QFLARE_PUBLIC_DASHBOARD = True
    assert client.get(ADDRESS).status_code == 200
    settings.QFLARE_PUBLIC_DASHBOARD = False
    client.force_login(person("nobody"))
    assert client.get(ADDRESS).status_code == client.get(f"{ADDRESS}?format=csv").status_code == 403


def test_events_are_told_in_the_feeds_words_with_what_was_sent(viewer):
    run = after_one_round()

    page = viewer.get(ADDRESS)

    text = text_of(page)
    assert "Round 1 is completed" in text
    newest = Event.objects.filter(stream=run.stream).latest("pk")
    assert f"{run.stream}#{newest.seq}" in text
    assert f'id="{run.stream}-{newest.seq}"' in page.content.decode()
    assert "As it was sent" in text


def test_a_search_that_is_not_through_says_how_far_it_came_and_leads_on(viewer, monkeypatch):
    monkeypatch.setattr("fl.queries.events.EVENTS_AT_ONCE", 7)
    monkeypatch.setattr("fl.queries.events.LOOKING_SECONDS", 0)
    record("needle", now=at(0))
    for number in range(10):
        record(f"hay {number}", now=at(60))

    page = viewer.get(f"{ADDRESS}?q=needle")
    further = re.search(r'href="([^"]+)" rel="next">Look further back<', page.content.decode())[1]
    found = viewer.get(ADDRESS + further.replace("&amp;", "&"))

    assert titles(page) == []
    assert "So far all events after 2030-01-01 12:01:00 were looked through." in text_of(page)
    assert titles(found) == ["needle"]
    assert "looked through" not in text_of(found)


def test_an_events_own_address_shows_it_first_and_marks_it(viewer):
    for number in range(60):
        record(f"note {number}")

    page = viewer.get(f"{ADDRESS}?at=system-3#system-3")

    assert titles(page)[0] == "note 2"
    marked = re.search(r'<li class="event [^"]*chosen[^"]*" id="([^"]+)"', page.content.decode())
    assert marked[1] == "system-3"


@pytest.mark.parametrize(
    "query",
    [
        "severity=loud",
        "kind=moon",
        "run=abc",
        "run=99999999999999999999",
        "before=x",
        "before=99999999999999999999999",
        "after=-1",
        "at=system",
        "at=system-x",
        "at=%00-1",
        "from=yesterday",
        "from=0001-01-01T00:00:00%2B23:00",
        "to=9999-99-99",
        "q=%00",
        "raw=maybe",
        "format=pdf",
    ],
)
def test_what_an_address_cannot_mean_is_left_out(viewer, query):
    record("seen")

    page = viewer.get(f"{ADDRESS}?{query}")

    assert page.status_code == 200
    assert titles(page) == ["seen"]


def test_a_device_that_is_not_there_has_no_events(viewer):
    record("seen")

    assert "No event is like this." in text_of(viewer.get(f"{ADDRESS}?device=nowhere"))


def test_a_filter_stays_in_the_form_and_in_every_link(viewer):
    participant("clinic")
    for number in range(120):
        record(f"note {number}", severity="warning", now=at(number))
    query = "severity=warnings&kind=error_notification&q=note&from=2030-01-01T12%3A00%3A00"

    page = viewer.get(f"{ADDRESS}?{query}")

    html = page.content.decode()
    links = page.context["links"]
    for name in ("newest", "newer", "older", "csv", "jsonl"):
        assert links[name].startswith(f"?{query}"), name
    assert 'value="note"' in html
    assert 'value="2030-01-01T12:00:00"' in html
    assert '<option value="error_notification" selected>' in html
    assert 'type="hidden" name="severity" value="warnings"' in html
    older = viewer.get(ADDRESS + links["older"])
    assert titles(older)[0] == f"note {119 - len(titles(page))}"


def test_of_a_kind_that_the_feed_does_not_tell_all_are_shown(admin):
    with events.transaction():
        events.record("device:7", server.Cancel(assignment_id=1, run_id=1, round=1, reason="stopped"), NOW)

    assert titles(admin.get(f"{ADDRESS}?kind=cancel")) == ["cancel"]
    assert titles(admin.get(ADDRESS)) == []


def test_the_newest_page_says_so_for_the_scripts_and_carries_its_positions(viewer):
    run = after_one_round()
    record("seen")

    newest, older = viewer.get(ADDRESS), viewer.get(f"{ADDRESS}?before=1")

    assert 'data-newest="1"' in newest.content.decode()
    assert 'data-newest=""' in older.content.decode()
    for name in ("system", run.stream):
        assert state_of(newest)["positions"][name]["seq"] == Stream.objects.get(pk=name).head


def test_nothing_in_the_markup_breaks_the_policy(viewer):
    record("<script>alert(1)</script>", detail='"><img src=x onerror=alert(1)>')

    finder = InlineFinder()
    page = viewer.get(f"{ADDRESS}?q=%22%3E%3Cscript%3E&raw=1")
    finder.feed(page.content.decode())
    finder.feed(viewer.get(ADDRESS).content.decode())

    assert finder.found == []


def test_every_page_leads_here(viewer):
    assert f'href="{reverse("event-list")}"' in viewer.get("/devices/").content.decode()


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_lines_hold_the_frames_as_they_were_sent(viewer):
    record("first")
    record("second", severity="info")

    response = viewer.get(f"{ADDRESS}?format=jsonl&severity=errors")

    (line,) = map(json.loads, body(response).splitlines())
    event = Event.objects.get(seq=1)
    assert line == {
        "event": "error_notification",
        "stream": "system",
        "seq": 1,
        "timestamp": "2030-01-01T12:00:00.000Z",
        "data": json.loads(event.data),
    }
    assert re.fullmatch(r'attachment; filename="events-[\d-]+\.jsonl"', response.headers["Content-Disposition"])


def test_no_cell_of_a_csv_file_is_a_formula(viewer):
    for sign in ("=", "+", "-", "@", "\t", "\r"):
        record(f'{sign}cmd|"/c calc"!A1')
    record("plain, with a comma")

    rows = list(csv.DictReader(io.StringIO(body(viewer.get(f"{ADDRESS}?format=csv")))))

    assert len(rows) == 7
    assert all(row["title"].startswith("'") for row in rows[:6])
    assert rows[6]["title"] == "plain, with a comma"
    assert (rows[6]["stream"], rows[6]["seq"], rows[6]["tone"]) == ("system", "7", "bad")


def test_a_file_holds_all_that_the_pages_tell_and_only_that(viewer):
    run = after_one_round()
    query = f"run={run.pk}"

    rows = list(csv.DictReader(io.StringIO(body(viewer.get(f"{ADDRESS}?{query}&format=csv")))))

    assert [row["title"] for row in reversed(rows)] == titles(viewer.get(f"{ADDRESS}?{query}"))


@pytest.mark.django_db(transaction=True)
def test_over_asgi_a_file_comes_piece_by_piece(viewer):
    with events.transaction():
        for number in range(LINES_AT_ONCE + 1):
            events.record("system", server.ErrorNotification(code="x", title=f"note {number}"), NOW)

    pieces = asyncio.run(_pieces(ADDRESS, "format=jsonl", viewer.cookies["sessionid"].value))

    assert [len(piece.splitlines()) for piece in pieces] == [LINES_AT_ONCE, 1]


async def _pieces(path, query, session):
    """Ask the application as a server does, and return the pieces of the body that it sends."""
    headers = [(b"host", b"localhost"), (b"cookie", f"sessionid={session}".encode())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    sent, over = [], asyncio.Event()
    incoming = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        if message := next(incoming, None):
            return message
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await application()(scope, receive, send)
    over.set()
    assert sent[0]["status"] == 200
    return [piece for message in sent[1:] if (piece := message.get("body"))]
