"""The real application behind one of our servers, with an eye on what the server does for its sockets.

    python -m tests.qflare.frames_program daphne|uvicorn [CHAIN KEY]      prints its port

/written     how many ready frames were handed to the server for writing at once, and how many of them it took
/buffers?<p> how large the system's send buffer is for the peer at port p
/hold?<s>    from now on the loop stands still for so many seconds after each close frame
All else is the application's. Daphne looks at once whom to ping, not at every fifth turn.
"""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "qflare.settings")

import django

django.setup(set_prefix=False)

from qflare import server, uvicorn_server  # noqa: E402 - needs the settings
from qflare.asgi import application  # noqa: E402 - see above
from qflare.serving import Certificate  # noqa: E402 - see above
from realtime.publishing import use_loop  # noqa: E402 - see above

counted = {"given": 0, "taken": 0}
hold = {"seconds": 0.0}


async def watched(scope, receive, send):
    """Answer what is asked of the program itself, and count what the application writes at once."""
    if scope["type"] == "http" and scope["path"] == "/written":
        await answer(send, f"{counted['given']} {counted['taken']}")
    elif scope["type"] == "http" and scope["path"] == "/buffers":
        await answer(send, str(send_buffer_towards(int(scope["query_string"]))))
    elif scope["type"] == "http" and scope["path"] == "/hold":
        hold["seconds"] = float(scope["query_string"])
        await answer(send, "held from now on")
    else:
        if scope["type"] == "websocket":
            use_loop(asyncio.get_running_loop())
            frames = scope["extensions"]["qflare.frames"]
            scope["extensions"]["qflare.frames"] = {"write": counting(frames["write"])}
        await application(scope, receive, holding(send))


def holding(send):
    async def send_and_hold(message):
        await send(message)
        if message["type"] == "websocket.close":
            threading.Event().wait(hold["seconds"])

    return send_and_hold


def counting(write):
    def write_and_count(frame):
        counted["given"] += 1
        is_taken = write(frame)
        counted["taken"] += is_taken
        return is_taken

    return write_and_count


def send_buffer_towards(port):
    """Look through this process's open files for the socket whose peer has this port."""
    for file in Path("/proc/self/fd").iterdir():
        if not file.is_socket():
            continue
        with socket.socket(fileno=os.dup(int(file.name))) as one:
            try:
                if one.family == socket.AF_INET and one.getpeername()[1] == port:
                    return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            except OSError:
                continue  # it listens
    return None


async def answer(send, text):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text.encode()})


if __name__ == "__main__":
    server.TURNS = 1
    kind = {"daphne": server.Server, "uvicorn": uvicorn_server.Server}[sys.argv[1]]
    certificate = Certificate(*map(Path, sys.argv[2:4])) if len(sys.argv) > 2 else None
    kind(watched, host="127.0.0.1", port=0, certificate=certificate, started=lambda port: print(port, flush=True)).run()
