"""What one would write without thinking about transfers: a Django view that reads an update, and a bare ASGI sender.

The view writes to the very sink that QFLARE's door writes to, and calls the same use case.
"""

import os
import re
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transfers_parts.stock_settings")
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 - Django comes first
from django.http import HttpRequest, HttpResponse  # noqa: E402 - see above
from django.urls import path  # noqa: E402 - see above
from django.utils import timezone  # noqa: E402 - see above

from fl.api.authentication import sender_of  # noqa: E402 - see above
from fl.api.uploads import Upload  # noqa: E402 - see above

PIECE = 1024 * 1024


def update(request: HttpRequest, assignment_id: int) -> HttpResponse:
    """Take an update."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    upload = Upload(assignment_id, sender_of(headers, timezone.now()), headers)
    try:
        while piece := request.read(PIECE):
            upload.write([piece])
        return HttpResponse(upload.finish().state)
    finally:
        upload.discard()


urlpatterns = [path("api/v1/assignments/<int:assignment_id>/update/", update)]
django_application = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send as many bytes as are asked for at /bare/<n>; leave the rest to Django."""
    found = re.fullmatch("/bare/([0-9]+)", scope["path"]) if scope["type"] == "http" else None
    if found is None:
        await django_application(scope, receive, send)
        return
    left = int(found[1])
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(left).encode())]},
    )
    piece = bytes(PIECE)
    while left > PIECE:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        left -= PIECE
    await send({"type": "http.response.body", "body": piece[:left]})
