"""The demonstration's own view of the server: signed in as a person is, by REST and by socket."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge.protocol import PROTOCOL
from edge.protocol.server import Frame, decode_frame
from qflare.demo.processes import CannotStart, Process

READY_SECONDS = 60


class Viewer:
    """A signed-in person who starts a run and watches it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = f"{host}:{port}"
        self.url = f"http://{self._address}"
        self._http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def wait_until_ready(self, server: Process) -> None:
        """Return when the server answers.

        Raises:
            CannotStart: it ended, or does not answer in time.
        """
        give_up_at = time.monotonic() + READY_SECONDS
        while time.monotonic() < give_up_at:
            server.check()
            try:
                if self._http.get("/api/v1/server/").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise CannotStart(f"the server does not answer on {self.url} after {READY_SECONDS} s; see {server.log}")

    def sign_in(self, code: str) -> None:
        """Exchange a sign-in code for a session, as the page does."""
        self._http.get("/sign-in/").raise_for_status()
        answer = self._http.post("/sign-in/", data={"code": code}, headers=self._csrf())
        if not (answer.is_success or answer.is_redirect):
            raise CannotStart(f"signing in was refused: HTTP {answer.status_code}")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a command.

        Raises:
            CannotStart: it was refused.
        """
        answer = self._http.post(path, json=body, headers=self._csrf())
        if not answer.is_success:
            raise CannotStart(f"the server refused {path}: {answer.text}")
        content: dict[str, Any] = answer.json()
        return content

    def _csrf(self) -> dict[str, str]:
        return {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": self.url, "Origin": self.url}

    def frames(self, server: Process) -> Iterator[tuple[Frame, dict[str, Any]]]:
        """Yield what the dashboard's socket says, for ever; comes back when the connection is lost.

        Raises:
            CannotStart: the server ended.
        """
        cookies = "; ".join(f"{name}={value}" for name, value in self._http.cookies.items())
        while True:
            server.check()
            try:
                with connect(
                    f"ws://{self._address}/ws/dashboard",
                    subprotocols=[PROTOCOL],  # type: ignore[list-item]  # a NewType of str
                    additional_headers={"Cookie": cookies, "Origin": self.url},
                    proxy=None,
                ) as socket:
                    for text in socket:
                        frame = decode_frame(text)
                        yield frame, msgspec.json.decode(frame.data)
            except (ConnectionClosed, OSError, TimeoutError):
                time.sleep(0.5)
