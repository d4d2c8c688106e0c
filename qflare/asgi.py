"""The application: HTTP to Django, WebSockets to `realtime`; the same behind Daphne and behind uvicorn."""

import asyncio
import os
from io import BytesIO
from typing import Any, cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "qflare.settings")
django.setup(set_prefix=False)

# Only now can models be imported. The URL map comes too: Django would load it, and torch with it, at the first request,
# and hold that up for seconds.
import qflare.urls  # noqa: E402, F401, I001 - loaded for what it loads
from channels.routing import ProtocolTypeRouter  # noqa: E402 - see above
from django.core.handlers.asgi import ASGIRequest  # noqa: E402 - see above
from qflare.bodies import bounded  # noqa: E402 - see above
from qflare.downloads import digest_in, send_weights  # noqa: E402 - see above
from qflare.forwarding import as_forwarded  # noqa: E402 - see above
from qflare.handler import Handler  # noqa: E402 - see above
from qflare.uploads import assignment_in, take_update  # noqa: E402 - see above
from realtime.probes import ALIVE, healthz  # noqa: E402 - see above
from realtime.process import running_process  # noqa: E402 - see above
from realtime.publishing import use_loop  # noqa: E402 - see above
from realtime.routing import websockets  # noqa: E402 - see above

http = Handler()


async def serve_http(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request; what it records is told from this loop."""
    use_loop(asyncio.get_running_loop())
    path = scope["path"]
    if path == ALIVE:
        await http.send_response(healthz(ASGIRequest(scope, BytesIO())), send)
    elif (assignment_id := assignment_in(path)) is not None:
        await take_update(assignment_id, scope, receive, send, http.call)
    elif (digest := digest_in(path)) is not None:
        await send_weights(digest, scope, receive, send, http.call)
    else:
        await bounded(http, scope, receive, send)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Follow the start and the end of servers that tell them, as uvicorn does and Daphne does not."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            use_loop(asyncio.get_running_loop())
            await send({"type": "lifespan.startup.complete"})
            continue
        process = running_process()
        if process is not None:
            await process.close_all()
            await process.stop()
        await send({"type": "lifespan.shutdown.complete"})
        return


parts = ProtocolTypeRouter({"http": serve_http, "websocket": websockets})


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Hand requests and sockets to their part of the application, as they were where the client asked."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await parts(cast("Any", as_forwarded(scope)), receive, send)
