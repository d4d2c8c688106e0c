"""Errors that were only counted are told by servers alone too, where no coordinator is there to do it."""

import asyncio
import json

from django.utils import timezone

from edge.protocol.server import ErrorNotification
from fl import events
from fl.models import Event
from fl.notifications import notify
from tests.realtime.sockets import Socket


def report():
    with events.transaction():
        notify("system", ErrorNotification(code="disk", title="the disk is full"), timezone.now())


async def test_without_a_coordinator_a_server_tells_how_often_an_error_came_again(loop, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    settings.QFLARE_POLL_SECONDS = 0.1
    settings.QFLARE_EQUAL_ERRORS_SECONDS = 0.3
    socket = await Socket("/ws/dashboard").connect()
    assert await socket.opened()
    for _ in range(4):
        await asyncio.to_thread(report)

    told = 0
    while told < 4:
        frame = await socket.frame()
        told += frame["data"]["count"] if frame["event"] == "error_notification" else 0

    texts = await asyncio.to_thread(lambda: list(Event.objects.order_by("seq").values_list("data", flat=True)))
    assert sum(json.loads(text)["count"] for text in texts) == told == 4
