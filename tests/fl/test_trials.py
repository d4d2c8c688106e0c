"""A test event: one event in `system` that names its sender, each time it is sent."""

import pytest

from fl import feed
from fl.models import Event
from fl.trials import send_test_event
from tests.builders import NOW, at, person

pytestmark = pytest.mark.django_db


def test_each_test_event_is_told_though_equal_ones_came_just_before():
    ada = person("ada", "admin")

    send_test_event(sender=ada, now=NOW)
    send_test_event(sender=ada, now=at(1))

    recorded = list(Event.objects.order_by("seq"))
    assert [event.stream_id for event in recorded] == ["system", "system"]
    assert [(line.title, line.tone) for line in feed.tell(recorded)] == [("Test event from ada", "plain")] * 2
