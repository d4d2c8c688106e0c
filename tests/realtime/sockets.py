"""A socket to the application without a wire: for the logic of consumers; the wire is tested over real servers.

Unlike the communicator of Channels it neither cancels the application when nothing comes, nor touches the database's
connections, and it can stop taking frames.
"""

import asyncio
import json

from realtime.routing import websockets

GIVE_UP_SECONDS = 30
open_sockets = set()


class Closed(Exception):
    """The server closed the socket; `code` says why."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


class Socket:
    """One connection to `realtime.routing.websockets`."""

    def __init__(self, path, *, headers=None, cookie=None, origin="http://localhost", subprotocols=(), extensions=None):
        given = {"host": "localhost", "origin": origin, "cookie": cookie, **(headers or {})}
        path, _, query = path.partition("?")
        self.scope = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value is not None],
            "subprotocols": list(subprotocols),
            "client": ["127.0.0.1", 5],
            "extensions": extensions or {},
        }
        self.takes = asyncio.Event()
        self.takes.set()
        self.subprotocol = None
        self._in = asyncio.Queue()
        self._out = asyncio.Queue()
        self.task = None

    async def connect(self):
        """Connect; raise Closed where the server does not accept."""
        open_sockets.add(self)
        self.task = asyncio.create_task(websockets(self.scope, self._in.get, self._send))
        await self._in.put({"type": "websocket.connect"})
        message = await self._next()
        self.subprotocol = message["subprotocol"]
        return self

    async def _send(self, message):
        await self.takes.wait()
        await self._out.put(message)

    async def _next(self):
        message = await asyncio.wait_for(self._out.get(), GIVE_UP_SECONDS)
        if message["type"] == "websocket.close":
            await self._in.put({"type": "websocket.disconnect", "code": message["code"]})
            raise Closed(message["code"])
        return message

    async def text(self):
        """Return the next frame as it was sent."""
        return (await self._next())["text"]

    async def frame(self):
        """Return the next frame."""
        return json.loads(await self.text())

    async def until(self, event, **data):
        """Return the next frame of this event, with these fields in its data; pass over what comes before."""
        while True:
            frame = await self.frame()
            if frame["event"] == event and all(frame["data"].get(name) == value for name, value in data.items()):
                return frame

    async def opened(self):
        """Read all that comes with the opening, up to the snapshot, and return it by event."""
        found = {}
        while True:
            frame = await self.frame()
            found.setdefault(frame["event"], []).append(frame["data"])
            if frame["event"] == "snapshot" and not frame["data"]["more"]:
                return found

    async def closed(self):
        """Return the code with which the server closes, and the frames before."""
        frames = []
        while True:
            try:
                frames.append(await self.frame())
            except Closed as end:
                return end.code, frames

    async def say(self, type, **fields):
        """Send a message."""
        await self.say_text(json.dumps({"type": type, **fields}))

    async def say_text(self, text):
        await self._in.put({"type": "websocket.receive", "text": text})

    async def say_bytes(self, data):
        await self._in.put({"type": "websocket.receive", "bytes": data})

    @property
    def waiting(self):
        """How many frames were sent and not read."""
        return self._out.qsize()

    async def leave(self, code=1001):
        """Go away, and wait until the application has noticed."""
        open_sockets.discard(self)
        self.takes.set()
        if self.task is not None and not self.task.done():
            await self._in.put({"type": "websocket.disconnect", "code": code})
            await asyncio.wait_for(self.task, GIVE_UP_SECONDS)


async def eventually(claim):
    """Wait until a claim holds; give up after a long while."""
    give_up = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
    while not claim():
        assert asyncio.get_running_loop().time() < give_up, "it never came to be"
        await asyncio.sleep(0.005)
