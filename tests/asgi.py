"""Asks the whole application over ASGI, as a server does, without one: each message of a body is the test's to give."""

import asyncio
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings

GONE = {"type": "http.disconnect"}


@cache
def application():
    """The whole application, made at the first request."""
    # `serve` collects static files before it imports the application, which looks for them at once.
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    from qflare.asgi import application

    return application


@dataclass
class Answer:
    """What was answered, read as Django's test client reads it."""

    status_code: int
    headers: dict
    content: bytes

    def json(self):
        return json.loads(self.content)


class Asking:
    """One request: `receive` gives the messages of its body one after another.

    Attributes:
        received: how many were asked for before there was an answer.
    """

    def __init__(self, method, path, headers, messages):
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.lower().encode(), str(value).encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        self._messages = iter(messages)
        self._answered = asyncio.Event()
        self.received = 0
        self.sent = []

    async def receive(self):
        self.received += not self.sent
        message = next(self._messages, None)
        if message is None:
            # Then the sender waits for its answer, and leaves with it.
            await self._answered.wait()
            return GONE
        return message

    async def send(self, message):
        self.sent.append(message)
        length = int({name.lower(): value for name, value in self.sent[0]["headers"]}.get(b"content-length", 0))
        if message["type"] == "http.response.body" and len(self._content()) >= length:
            self._answered.set()

    def leave(self):
        """Go away without waiting for the answer."""
        self._answered.set()

    async def answer(self):
        """Return the answer; None when none was sent."""
        await application()(self._scope, self.receive, self.send)
        if not self.sent:
            return None
        headers = {name.decode().title(): value.decode() for name, value in self.sent[0]["headers"]}
        return Answer(self.sent[0]["status"], headers, self._content())

    def _content(self):
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def body(*chunks):
    """Return the messages of a body in these pieces."""
    last = len(chunks) - 1
    return [{"type": "http.request", "body": chunk, "more_body": i < last} for i, chunk in enumerate(chunks)]


def put(path, data, headers):
    """PUT bytes in one piece; a Content-Length is sent unless `headers` have one."""
    headers = {"Content-Length": len(data), "Host": "testserver", **headers}
    headers = {name: value for name, value in headers.items() if value is not None}
    return asyncio.run(Asking("PUT", path, headers, body(data)).answer())


def get(path, headers, method="GET"):
    """Fetch what is there."""
    return asyncio.run(Asking(method, path, {"Host": "localhost", **headers}, body(b"")).answer())
