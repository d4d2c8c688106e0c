"""One of our servers before a little application that does with requests what a test asks for by their path.

    python -m tests.qflare.http_program daphne|uvicorn      prints its port

/count       reads the body and answers how many bytes came, and in how many pieces
/slow        reads a piece, waits for a request to /go, and reads the rest
/refuse      answers 401 without a look at the body
/send?<n>    sends n bytes in pieces of 256 KiB; /sent tells how many bytes its sends have taken so far
/whole?<n>   sends n bytes at once, and is done
/break       sends half of what it said, and fails
/seen        tells what became of the requests to /count and /slow: "whole" or "gone", one a line
/forget      begins all that anew
"""

import asyncio
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "qflare.settings")

import django

django.setup(set_prefix=False)

from qflare import server, uvicorn_server  # noqa: E402 - needs the settings

PIECE = 256 * 1024


class Application:
    def __init__(self):
        self.forget()

    def forget(self):
        self.seen = []
        self.sent = 0
        self.may_go = asyncio.Event()

    async def __call__(self, scope, receive, send):
        work = getattr(self, "do_" + scope.get("path", scope["type"]).strip("/"))
        await work(scope, receive, send)

    async def do_lifespan(self, _, receive, send):
        for part in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{part}.complete"})

    async def do_count(self, _, receive, send):
        size = pieces = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append("gone")
                return
            size += len(message["body"])
            pieces += 1
            more = message["more_body"]
        self.seen.append("whole")
        await answer(send, f"{size} {pieces}")

    async def do_slow(self, scope, receive, send):
        await receive()
        await self.may_go.wait()
        await self.do_count(scope, receive, send)

    async def do_go(self, _, receive, send):
        self.may_go.set()
        await answer(send, "gone on")

    async def do_refuse(self, _, receive, send):
        await answer(send, "no", status=401)

    async def do_send(self, scope, receive, send):
        left = int(scope["query_string"])
        headers = [(b"content-length", str(left).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while left:
            piece = bytes(min(PIECE, left))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            left -= len(piece)
            self.sent += len(piece)
        await send({"type": "http.response.body", "body": b""})

    async def do_whole(self, scope, receive, send):
        await answer(send, " " * int(scope["query_string"]))

    async def do_sent(self, _, receive, send):
        await answer(send, str(self.sent))

    async def do_break(self, _, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise RuntimeError("broken on purpose")

    async def do_forget(self, _, receive, send):
        self.forget()
        await answer(send, "forgotten")

    async def do_seen(self, _, receive, send):
        await answer(send, "\n".join(self.seen))


async def answer(send, text, status=200):
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


if __name__ == "__main__":
    kind = {"daphne": server.Server, "uvicorn": uvicorn_server.Server}[sys.argv[1]]
    kind(Application(), host="127.0.0.1", port=0, started=lambda port: print(port, flush=True)).run()
