"""The stock recipe: a JSON consumer that joins a group and sends each of its members what `group_send` brings."""

import asyncio
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fanout_parts.stock.settings")

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

GROUP = "dashboard"
loops: list[asyncio.AbstractEventLoop] = []
"""The server's loop, once the first consumer has joined."""


class DashboardConsumer(AsyncJsonWebsocketConsumer):
    """A dashboard."""

    async def connect(self) -> None:
        """Join the group of all dashboards."""
        if not loops:
            loops.append(asyncio.get_running_loop())
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave it."""
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def event(self, message: dict[str, Any]) -> None:
        """Send an event on."""
        await self.send_json(message["content"])


consumer: Any = DashboardConsumer.as_asgi()  # the stubs of Django know no consumers
route: Any = path("ws/dashboard", consumer)  # nor those of Channels the routes that `path` makes
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AuthMiddlewareStack(URLRouter([route])),
    }
)
