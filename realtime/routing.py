"""Which path is which type of connection: `/ws/dashboard`, `/ws/clients`, `/ws/admin`, `/ws`, all below `/api` too."""

import logging
from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from realtime.consumers.admin import AdminConsumer
from realtime.consumers.dashboard import DashboardConsumer
from realtime.consumers.device import DeviceConsumer
from realtime.consumers.general import GeneralConsumer

logger = logging.getLogger(__name__)

CONSUMERS = {
    "ws/dashboard": DashboardConsumer,
    "ws/clients": DeviceConsumer,
    "ws/admin": AdminConsumer,
    "ws": GeneralConsumer,
}


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer a path where there is no socket: HTTP 403, before anything is accepted."""
    await receive()
    logger.info("there is no socket at %s", scope["path"])
    await send({"type": "websocket.close", "code": 1000})


def _routes() -> list[Any]:
    # Django's `re_path` takes any callable, though its types speak of views.
    route: Any = re_path
    paths = [route(rf"^(?:api/)?{path}/?$", consumer.as_asgi()) for path, consumer in CONSUMERS.items()]
    return [*paths, route(r"", refuse)]


websockets = URLRouter(_routes())
