"""The inspector without its script: what it is, and what one may try from it."""

import pytest

from tests.builders import participant
from tests.fl.views.answers import after_one_round, state_of, text_of
from tests.fl.views.test_doors import InlineFinder

pytestmark = pytest.mark.django_db


def test_it_is_for_viewers(client, settings):
    assert client.get("/inspector/").url == "/login/?next=/inspector/"
    settings.QFLARE_PUBLIC_DASHBOARD = True
    assert client.get("/inspector/").status_code == 200


def test_without_scripts_it_says_what_it_is_and_where_the_protocol_is_written(viewer):
    page = viewer.get("/inspector/")

    assert "a WebSocket that a script opens" in text_of(page)
    assert 'href="/docs/protocol/"' in page.content.decode()


def test_an_admin_is_offered_a_test_event(admin):
    assert "data-test-event" in admin.get("/inspector/").content.decode()


def test_an_operator_may_start_the_demo_where_a_device_is_there(operator):
    assert "data-start-demo" not in operator.get("/inspector/").content.decode()

    participant("clinic", task="digits").connect()

    html = operator.get("/inspector/").content.decode()
    assert "data-start-demo" in html
    assert "data-test-event" not in html


def test_a_viewer_is_offered_neither(viewer):
    participant("clinic", task="digits").connect()

    html = viewer.get("/inspector/").content.decode()

    assert "data-start-demo" not in html
    assert "data-test-event" not in html


def test_it_carries_the_positions_of_the_streams_that_its_socket_follows(viewer):
    run = after_one_round()

    assert {"system", run.stream} <= set(state_of(viewer.get("/inspector/"))["positions"])


def test_nothing_in_its_markup_breaks_the_policy(admin):
    finder = InlineFinder()

    finder.feed(admin.get("/inspector/").content.decode())

    assert finder.found == []
