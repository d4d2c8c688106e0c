"""What our servers do for live sockets: frames written at once, buffers, pings, and a queue for a whole fleet."""

import contextlib
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.db import connection

from edge.protocol.close_codes import CloseCode
from qflare.serving import BACKLOG, CLOSE_SECONDS, KERNEL_BYTES
from tests.realtime.acts import note, record_now
from tests.realtime.raw import CLOSE, PING, PONG, TEXT, RawClient, drop_all
from tests.realtime.servers import OURS

ROOT = Path(__file__).parent.parent.parent
GIVE_UP_SECONDS = 60
PINGED_AFTER = 1.0


class Program:
    """`frames_program` on the tests' own database."""

    def __init__(self, kind, folder, certificates=None):
        database = connection.settings_dict["NAME"]
        environment = {
            **os.environ,
            "QFLARE_DATA_DIR": str(folder),
            "DATABASE_URL": f"sqlite:///{database}",
            "REDIS_URL": "",
            "QFLARE_SECRET_KEY": settings.SECRET_KEY,
            "QFLARE_PUBLIC_DASHBOARD": "1",
            "QFLARE_POLL_SECONDS": "0.1",
            "QFLARE_PING_SECONDS": str(PINGED_AFTER),
        }
        tls = [certificates.chain, certificates.key] if certificates else []
        command = [sys.executable, "-m", "tests.qflare.frames_program", kind, *tls]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.trust = certificates and certificates.trust

    def __enter__(self):
        return self

    def __exit__(self, *_):
        drop_all()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        assert self.process.wait(GIVE_UP_SECONDS) == 0
        self.process.stdout.close()

    def ask(self, path):
        url = f"https://localhost:{self.port}" if self.trust else f"http://127.0.0.1:{self.port}"
        return httpx.get(url + path, trust_env=False, verify=self.trust or True, timeout=GIVE_UP_SECONDS).text

    def dashboard(self):
        client = RawClient(self.port, "/ws/dashboard", trust=self.trust)
        client.text()
        return client


@pytest.fixture(params=OURS)
def kind(request):
    return request.param


def read_until_title(client, title):
    while title not in client.text():
        pass


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
def test_ready_frames_are_written_at_once_on_plain_tcp_and_never_over_tls(
    kind, is_encrypted, transactional_db, tmp_path, certificates
):
    with Program(kind, tmp_path, certificates if is_encrypted else None) as program:
        clients = [program.dashboard() for _ in range(3)]
        for title in ("first", "second"):
            record_now("system", note(title))
            for client in clients:
                read_until_title(client, title)

        given, taken = map(int, program.ask("/written").split())

    assert given >= 3
    assert taken == 0 if is_encrypted else taken >= 3


def test_a_send_buffer_is_small_only_from_the_upgrade_on(kind, transactional_db, tmp_path):
    with Program(kind, tmp_path) as program, socket.create_connection(("127.0.0.1", program.port)) as plain:
        download = int(program.ask(f"/buffers?{plain.getsockname()[1]}"))
        upgraded = int(program.ask(f"/buffers?{program.dashboard().socket.getsockname()[1]}"))

    assert upgraded == 2 * KERNEL_BYTES  # Linux takes it twice
    assert download > upgraded


def test_who_is_silent_is_pinged_and_lives_by_its_answers(kind, transactional_db, tmp_path):
    with Program(kind, tmp_path) as program:
        client = program.dashboard()
        pings = 0
        while pings < 3:
            opcode, payload = client.receive()
            assert opcode in (PING, TEXT)
            if opcode == PING:
                client.send(payload, PONG)
                pings += 1
        record_now("system", note("still heard"))
        while "still heard" not in (payload := client.receive()[1]).decode("latin-1"):
            pass


def test_who_says_something_is_not_pinged_while_who_is_silent_is(kind, transactional_db, tmp_path):
    with Program(kind, tmp_path) as program:
        talking, silent = program.dashboard(), program.dashboard()
        with talk(talking) as spoken:
            for _ in range(2):
                client_is_pinged(silent)
        record_now("system", note("the end"))
        pings = pings_until_title(talking, "the end")

    # Unless this test itself was held up for so long that it was silent.
    longest = max(after - before for before, after in pairwise(spoken))
    assert pings == 0 or longest >= PINGED_AFTER


@contextlib.contextmanager
def talk(client):
    """Let a client send heartbeats meanwhile; the value is when it did."""
    ended, spoken = threading.Event(), [time.monotonic()]

    def speak():
        while not ended.wait(PINGED_AFTER / 3):
            client.send('{"type":"heartbeat"}')
            spoken.append(time.monotonic())

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield spoken
    finally:
        ended.set()
        thread.join()


def client_is_pinged(client):
    while (received := client.receive())[0] != PING:
        assert received[0] == TEXT
    client.send(received[1], PONG)


def pings_until_title(client, title):
    pings, payload = 0, b""
    while title not in payload.decode("latin-1"):
        opcode, payload = client.receive()
        assert opcode in (PING, TEXT), payload
        pings += opcode == PING
    return pings


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
def test_a_close_code_arrives_though_the_loop_stands_still_for_longer_than_an_answer_may_take(
    kind, is_encrypted, transactional_db, tmp_path, certificates
):
    with Program(kind, tmp_path, certificates if is_encrypted else None) as program:
        client = program.dashboard()
        program.ask(f"/hold?{CLOSE_SECONDS + 0.5}")
        program.process.terminate()

        assert client.close_code() == 4001


def test_who_never_answers_a_close_frame_is_let_go_when_its_time_is_over(kind, transactional_db, tmp_path):
    with Program(kind, tmp_path) as program:
        client = program.dashboard()
        begun = time.monotonic()
        for _ in range(10):  # so many mistakes end a connection
            client.send("no JSON")

        closed_with = client.close_code()
        end = client.receive()
        lasted = time.monotonic() - begun

    assert closed_with in (CloseCode.PROTOCOL_ERROR, CloseCode.TOO_MANY)
    assert end == (CLOSE, 1006)
    # Autobahn's timers end with whole seconds, so up to one early.
    assert lasted > CLOSE_SECONDS - 1


def test_a_fleet_that_comes_while_the_server_is_busy_waits_in_its_queue(kind, transactional_db, tmp_path):
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    number = min(BACKLOG, limit)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, number + 1000)), hard))
    peers = []
    try:
        with Program(kind, tmp_path) as program, selectors.DefaultSelector() as connecting:
            program.ask("/written")  # it listens before it is ready to be told to end
            program.process.send_signal(signal.SIGSTOP)
            for _ in range(number):
                peer = socket.socket()
                peers.append(peer)
                peer.setblocking(False)
                peer.connect_ex(("127.0.0.1", program.port))
                connecting.register(peer, selectors.EVENT_WRITE)
            give_up = time.monotonic() + GIVE_UP_SECONDS
            connected = 0
            while connected < number:
                assert time.monotonic() < give_up, f"{connected} of {number} are connected"
                for key, _ in connecting.select(1):
                    assert key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    connecting.unregister(key.fileobj)
                    connected += 1
            for peer in peers:
                peer.close()
    finally:
        for peer in peers:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
