"""HTTP on our Daphne, byte by byte: requests begin at their headers, bodies pass through, and either side waits."""

import os
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.realtime.servers import OURS, start_server

ROOT = Path(__file__).parent.parent.parent
GIVE_UP_SECONDS = 60
MIB = 1024 * 1024


class Program:
    """The little application behind one of our servers, in a process of its own."""

    def __init__(self, folder, kind="daphne"):
        environment = {
            **os.environ,
            "QFLARE_DATA_DIR": str(folder),
            "QFLARE_TRANSFER_SECONDS": "1",
            "DATABASE_URL": "",
            "REDIS_URL": "",
        }
        command = [sys.executable, "-m", "tests.qflare.http_program", kind]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def connect(self, data=b"", receive_buffer=None):
        peer = socket.socket()
        if receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(GIVE_UP_SECONDS)
        peer.connect(("127.0.0.1", self.port))
        peer.sendall(data)
        return peer

    def stop(self):
        self.process.terminate()
        assert self.process.wait(GIVE_UP_SECONDS) == 0
        self.process.stdout.close()

    def ask(self, path):
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=GIVE_UP_SECONDS).text

    def wait_for(self, path, is_there):
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while not is_there(said := self.ask(path)):
            assert time.monotonic() < give_up, said
            time.sleep(0.02)
        return said

    @property
    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


@pytest.fixture(scope="module")
def running_program(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("program"))
    yield program
    program.stop()


@pytest.fixture
def program(running_program):
    running_program.ask("/forget")
    return running_program


@pytest.fixture(params=OURS)
def any_program(request, tmp_path):
    program = Program(tmp_path, request.param)
    yield program
    program.stop()


def head(path, *headers, method="PUT"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def read_to_end(peer):
    """Return all that the server says until it ends the connection."""
    data = b""
    try:
        while piece := peer.recv(65536):
            data += piece
    except ConnectionError:
        return data
    return data


def read_answer(peer):
    """Return the status and the body of one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536) or pytest.fail(f"ended early: {data!r}")
    start, body = data.split(b"\r\n\r\n", 1)
    length = int(re.search(rb"(?i)content-length: (\d+)", start)[1])
    while len(body) < length:
        body += peer.recv(65536) or pytest.fail(f"ended early: {data!r}")
    return int(start.split(b" ")[1]), body


# ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_comes_in_pieces_and_whole_however_it_is_sent(program):
    with program.connect(head("/count", "Content-Length: 5000000")) as peer:
        peer.sendall(bytes(5_000_000))
        _, counted = read_answer(peer)
    size, pieces = map(int, counted.split())
    assert size == 5_000_000
    assert pieces > 2

    with program.connect(head("/count", "Transfer-Encoding: chunked")) as peer:
        for _ in range(3):
            peer.sendall(b"5\r\nabcde\r\n")
        peer.sendall(b"0\r\n\r\n")
        assert read_answer(peer)[1].split()[0] == b"15"


def test_requests_follow_one_another_on_a_connection_also_sent_at_once(program):
    one = head("/count", "Content-Length: 3") + b"abc"
    with program.connect(one + head("/count", method="GET") + one) as peer:
        said = b""
        while said.count(b"HTTP/1.1 200") < 3 or not said.endswith(b"3 1"):
            said += peer.recv(65536)
    assert re.findall(rb"\r\n\r\n(\d+ \d+)", said) == [b"3 1", b"0 1", b"3 1"]


def test_a_sender_is_held_back_while_the_application_does_not_read(program):
    size = 200 * MIB
    before = program.memory
    with program.connect(head("/slow", f"Content-Length: {size}")) as peer:
        peer.setblocking(False)
        sent, still = 0, 0
        while still < 20:
            try:
                sent += peer.send(bytes(MIB))
                still = 0
            except BlockingIOError:
                still += 1
                program.ask("/seen")
        assert sent < size / 4
        assert program.memory - before < 16 * MIB

        program.ask("/go")
        peer.setblocking(True)
        while sent < size:
            sent += peer.send(bytes(min(MIB, size - sent)))
        assert read_answer(peer)[0] == 200
    assert program.memory - before < 16 * MIB


def test_an_answer_that_does_not_wait_for_the_body_ends_the_connection(program):
    smuggled = head("/count", method="GET")
    with program.connect(head("/refuse", "Content-Length: 1000000") + smuggled) as peer:
        said = read_to_end(peer)

    assert said.startswith(b"HTTP/1.1 401")
    assert b"Connection: close" in said
    assert said.count(b"HTTP/1.1") == 1
    assert program.ask("/seen") == ""


def test_only_a_wanted_body_is_told_to_come(program):
    with program.connect(head("/count", "Content-Length: 3", "Expect: 100-continue")) as peer:
        assert peer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(b"abc")
        assert read_answer(peer)[1] == b"3 1"

    with program.connect(head("/refuse", "Content-Length: 3", "Expect: 100-continue")) as peer:
        assert read_to_end(peer).startswith(b"HTTP/1.1 401")


def test_a_sender_that_leaves_in_the_middle_is_told_to_the_application(program):
    program.connect(head("/count", "Content-Length: 10") + b"12345").close()

    assert program.wait_for("/seen", bool) == "gone"


def test_a_sender_that_sends_less_than_it_said_is_ended(program):
    with program.connect(head("/count", "Content-Length: 10") + b"12345") as peer:
        assert read_to_end(peer) == b""

    assert program.wait_for("/seen", bool) == "gone"


@pytest.mark.parametrize(
    "wrong",
    [
        head("/count", "Content-Length: 3", "Content-Length: 4") + b"abcd",
        head("/count", "Content-Length: 3", "Transfer-Encoding: chunked") + b"abc",
        head("/count", "Content-Length: -3"),
        head("/count", "Transfer-Encoding: chunked") + b"x\r\n",
        head("/count", "Transfer-Encoding: chunked") + b"3\r\nabcdef\r\n",
        head("/count", "X-Strange: a\vb", "Content-Length: 3") + b"abc",
        head("/count", "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 3") + b"abc",
    ],
)
def test_a_body_whose_length_cannot_be_trusted_is_refused_once_and_cut(program, wrong):
    with program.connect(wrong) as peer:
        said = read_to_end(peer)

    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1
    assert "whole" not in program.ask("/seen")


# ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_application_waits_for_a_reader_and_memory_is_constant(program):
    size = 100 * MIB
    before = program.memory
    readers = [program.connect(head(f"/send?{size}", method="GET"), receive_buffer=65536) for _ in range(3)]
    sent, last = int(program.ask("/sent")), -1
    while sent != last:
        last, sent = sent, int(program.ask("/sent"))

    assert sent < size
    assert program.memory - before < 16 * MIB
    for reader in readers:
        reader.close()


def test_a_reader_that_takes_nothing_is_ended_and_one_that_is_slow_is_not(any_program):
    size = 64 * MIB
    with (
        any_program.connect(head(f"/send?{size}", method="GET"), receive_buffer=4096) as deaf,
        any_program.connect(head(f"/send?{size}", method="GET"), receive_buffer=65536) as slow,
    ):
        taken = 0
        until = time.monotonic() + 4
        while time.monotonic() < until:  # four times the patience, a little of it at a time
            taken += len(slow.recv(65536))
            time.sleep(0.05)
        assert len(read_to_end(deaf)) < size
        assert taken > 0
        while piece := slow.recv(MIB):
            taken += len(piece)
            if taken > size:
                break
    assert taken > size


LAST = [b"GET /whole?%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"GET /whole?%d HTTP/1.0\r\n\r\n"]


@pytest.mark.parametrize("request_of", LAST, ids=["close", "HTTP 1.0"])
def test_who_takes_nothing_of_the_last_answer_is_ended_and_who_takes_it_slowly_gets_all(program, request_of):
    size = 32 * MIB
    with (
        program.connect(request_of % size, receive_buffer=4096) as deaf,
        program.connect(request_of % size, receive_buffer=65536) as slow,
    ):
        taken = 0
        until = time.monotonic() + 4
        while time.monotonic() < until:  # four times the patience, a little of it at a time
            taken += len(slow.recv(65536))
            time.sleep(0.05)
        ended = select.poll()
        ended.register(deaf, 0)  # tells of the end alone
        assert ended.poll(1000 * GIVE_UP_SECONDS)
        while piece := slow.recv(MIB):
            taken += len(piece)
        assert taken > size


def test_what_breaks_off_is_not_taken_for_whole_and_the_server_goes_on(program):
    with pytest.raises(httpx.HTTPError):
        program.ask("/break")

    assert program.ask("/seen") == ""


def test_head_is_answered_without_a_body_also_where_the_application_sends_one(program):
    with program.connect(head("/send?600000", method="HEAD") + head("/seen", method="GET")) as peer:
        said = b""
        while said.count(b"\r\n\r\n") < 2:
            said += peer.recv(65536)
    assert len(said) < 1000


# ── the whole application, on both servers ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def server(request, tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp(request.param), kind=request.param)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


def say(server, data):
    with socket.create_connection(("127.0.0.1", server.port), GIVE_UP_SECONDS) as peer:
        peer.sendall(data)
        return read_answer(peer)


UPDATE = "/api/v1/assignments/1/update/"


@pytest.mark.parametrize("path", ["/api/v1/runs/", "/api/v1/enroll/", "/login/", "/nothing"])
def test_a_body_over_one_mebibyte_is_refused_before_it_comes(server, path):
    status, body = say(server, head(path, f"Content-Length: {MIB + 1}", method="POST"))

    assert (status, b'"too_large"' in body) == (413, True)


def test_a_body_of_unknown_length_is_refused_at_one_mebibyte(server):
    chunk = b"40000\r\n" + bytes(0x40000) + b"\r\n"

    status, body = say(server, head("/api/v1/runs/", "Transfer-Encoding: chunked", method="POST") + chunk * 5)

    assert (status, b'"too_large"' in body) == (413, True)


def test_a_body_of_unknown_length_is_taken_as_any_other(server):
    data = head("/api/v1/enroll/", "Transfer-Encoding: chunked", method="POST") + b"2\r\n{}\r\n0\r\n\r\n"

    status, body = say(server, data)

    assert (status, b"this is no enrolment" in body) == (422, True)


@pytest.mark.parametrize("size", [10, 10**6, 10**12])
def test_a_body_of_nobody_is_refused_before_it_comes(server, size):
    status, body = say(server, head(UPDATE, f"Content-Length: {size}"))

    assert (status, b'"not_authenticated"' in body) == (401, True)
    assert not (server.folder / "files" / "incoming").exists()


def test_one_who_sends_on_regardless_still_gets_the_answer(server):
    with socket.create_connection(("127.0.0.1", server.port), GIVE_UP_SECONDS) as peer:
        peer.sendall(head(UPDATE, "Content-Length: 5000000"))
        peer.sendall(bytes(5_000_000))
        assert read_answer(peer)[0] == 401
