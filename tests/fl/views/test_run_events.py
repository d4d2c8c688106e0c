"""A run's events: filtered, told in the feed's words, and paged without a hole."""

import html
import json
import re

import pytest
from django.urls import reverse

from fl.exceptions import UpdateRefused
from fl.models import Event
from fl.queries import run_tabs as queries
from tests.builders import at, fleet, started_run, step
from tests.fl.views.answers import text_of
from tests.fl.views.counting import queries_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def eventful():
    """A run one of whose two devices was refused, so that its round failed; and that device."""
    refused, other = fleet(2)
    run = started_run()
    step(run)
    with pytest.raises(UpdateRefused):
        refused.send(num_examples=0)
    other.send()
    step(run, at(1))
    return run, refused, other


def titles(client, run, **query):
    """Return what is told, newest first."""
    page = client.get(reverse("run-events", args=[run.pk]), query).content.decode()
    log = re.search(r'<ol class="log".*?</ol>', page, re.DOTALL)[0]
    return [html.unescape(title) for title in re.findall(r"<div><span>(.*?)</span>", log)]


def test_a_runs_events_are_told_newest_first_in_the_feeds_words(viewer, eventful):
    run, *_ = eventful

    told = titles(viewer, run)

    assert f"Round 1 of {run.name} failed" in told
    assert told.index(f"Round 1 of {run.name} failed") < told.index("Round 1 started")
    assert told[-1] == f"{run.name} was created"


def test_events_are_filtered_by_severity_and_text_together(viewer, eventful):
    run, *_ = eventful

    assert titles(viewer, run, severity="warning") == [f"Round 1 of {run.name} failed"]
    assert titles(viewer, run, severity="error") == []
    assert titles(viewer, run, q="ROUND 1 STARTED") == ["Round 1 started"]
    assert titles(viewer, run, q="started", severity="warning") == []
    assert titles(viewer, run, severity="bogus") == titles(viewer, run)


def test_what_devices_did_is_told_of_one_or_of_all(viewer, eventful):
    run, refused, other = eventful
    elsewhere = started_run(name="elsewhere")

    of_one = titles(viewer, run, device=refused.device.pk)
    of_all = titles(viewer, run, device="all")

    assert f"The update of {refused.device.name} was rejected" in of_one
    assert not any(other.device.name in title for title in of_one)
    assert set(of_one) | {f"{other.device.name} sent its update"} <= set(of_all)
    assert titles(viewer, elsewhere, device="all") == []
    assert titles(viewer, run, device="bogus") == titles(viewer, run)


def test_an_event_shows_its_data_as_they_were_sent(viewer, eventful):
    run, *_ = eventful
    stored = Event.objects.get(stream=run.stream, event="error_notification")

    page = viewer.get(reverse("run-events", args=[run.pk]), {"severity": "warning"}).content.decode()

    (shown,) = re.findall(r'<pre tabindex="0">(.*?)</pre>', page, re.DOTALL)
    assert json.loads(html.unescape(shown)) == json.loads(stored.data)


def test_older_events_follow_without_a_hole_or_a_repetition(viewer, eventful, monkeypatch):
    run, *_ = eventful
    whole = titles(viewer, run)
    monkeypatch.setattr(queries, "EVENTS_A_PAGE", 2)

    pages, query = [], {}
    for _ in range(len(whole)):
        page = viewer.get(reverse("run-events", args=[run.pk]), query).content.decode()
        pages += titles(viewer, run, **query)
        older = re.search(r'href="\?before=(\d+)"', page)
        if older is None:
            break
        query = {"before": older[1]}

    assert pages == whole


def test_a_text_that_nothing_new_has_leads_on_to_what_was_not_looked_through(viewer, eventful, monkeypatch):
    run, *_ = eventful
    monkeypatch.setattr(queries, "WINDOWS", (1, 1))

    page = viewer.get(reverse("run-events", args=[run.pk]), {"q": "was created"})

    assert "Nothing among the newest that were looked through" in text_of(page)
    assert re.search(r'href="\?q=was\+created&amp;before=\d+"', page.content.decode())


@pytest.mark.parametrize("before", ["0", "1", "-3", "x", "999999999", "9" * 30])
def test_a_place_that_cannot_be_is_no_error(viewer, eventful, before):
    assert viewer.get(reverse("run-events", args=[eventful[0].pk]), {"before": before}).status_code == 200


def test_events_take_few_queries(viewer, eventful):
    address = reverse("run-events", args=[eventful[0].pk])

    assert max(queries_of(viewer, address), queries_of(viewer, f"{address}?device=all&q=nothing+at+all")) <= 12
