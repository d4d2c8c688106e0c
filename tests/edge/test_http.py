"""The device's requests as a server on a plain socket sees them: what is kept, followed, trusted, and given up."""

import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge import http
from edge.errors import BadUsage, Refused, ServerUnreachable
from edge.http import Doors, Server, trusted_certificates

AND_CLOSE = b"\r\n"
"""Behind an answer, what no one waits for; then the connection is closed without a word in the head."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Plain:
    """Answers every request with the next of its answers (the last one again and again); None closes unanswered.

    `connections` counts how often it was connected to, `requests` holds each request's head.
    """

    def __init__(self, *answers, host="127.0.0.1", tls=None):
        self.answers = list(answers)
        self.requests = []
        self.connections = 0
        self.closed = threading.Event()
        self.tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.server = Server(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}")
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                connection = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while head := b"".join(iter(stream.readline, b"\r\n")) if stream.peek(1) else b"":
                length = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
                stream.read(int(length[0].split(b":")[1]) if length else 0)
                self.requests.append(head.decode())
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    return
                connection.sendall(answer)
                if b"Connection: close" in answer or answer.endswith(AND_CLOSE):
                    break
        self.closed.set()


@contextmanager
def plain(*answers, certificates=None, connections=1, **options):
    server = Plain(*answers, **options)
    with server.listener, Doors(server.server, certificates, connections=connections) as doors:
        yield server, doors


def ask(doors):
    doors.report_failure(1, "tired", "token")


def weights(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_a_connection_serves_one_request_after_the_other():
    with plain(OK) as (server, doors):
        for _ in range(3):
            ask(doors)

    assert server.connections == 1
    assert all("Host: 127.0.0.1" in head and "Bearer token" in head for head in server.requests)


def test_a_connection_that_the_server_closed_is_not_used_again():
    with plain(OK + AND_CLOSE, OK) as (server, doors):
        ask(doors)
        server.closed.wait(10)
        ask(doors)

    assert server.connections == 2


def test_a_connection_that_rested_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(http, "IDLE_SECONDS", 0.0)
    with plain(OK) as (server, doors):
        ask(doors)
        ask(doors)

    assert server.connections == 2


def test_what_fails_is_asked_once_and_told_in_the_system_s_words():
    with plain(None) as (server, doors), pytest.raises(ServerUnreachable, match="Remote end closed"):
        ask(doors)

    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_named_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Doors(Server(address), None) as doors, pytest.raises(ServerUnreachable, match=r"Connection refused"):
        doors.identity()


def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 1.0)
    with plain(b"") as (_, doors), pytest.raises(ServerUnreachable, match="timed out"):
        ask(doors)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(status):
    answer = b"HTTP/1.1 %d Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n" % status
    with plain(answer) as (server, doors), pytest.raises(ServerUnreachable, match=str(status)):
        ask(doors)

    assert len(server.requests) == 1


def test_a_busy_server_is_not_asked_again_by_itself():
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    with plain(answer) as (server, doors), pytest.raises(ServerUnreachable, match="503"):
        ask(doors)

    assert len(server.requests) == 1


def test_proxies_of_the_environment_are_passed_by(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    with plain(OK) as (server, doors):
        ask(doors)

    assert len(server.requests) == 1


def test_weights_come_whole_or_not_at_all(tmp_path):
    body = bytes(200_000)
    with plain(weights(body), weights(body), weights(b"w")) as (_, doors):
        doors.download("/w", "token", tmp_path / "whole", len(body))
        with pytest.raises(Refused, match=f"more than {len(body) - 1} bytes"):
            doors.download("/w", "token", tmp_path / "large", len(body) - 1)
        doors.download("/w", "token", tmp_path / "next", 1)

    # With one connection at most, the third shows that the second gave its own back.
    assert (tmp_path / "whole").read_bytes() == body
    assert (tmp_path / "next").read_bytes() == b"w"


def test_weights_that_are_cut_off_are_no_weights(tmp_path):
    cut_off = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf"
    with plain(cut_off, OK) as (server, doors):
        with pytest.raises(ServerUnreachable):
            doors.download("/w", "token", tmp_path / "w", 100)
        ask(doors)

    assert server.connections == 2


def test_ipv6_addresses_are_servers_too():
    with plain(OK, host="::1") as (server, doors):
        ask(doors)

    assert f"Host: [::1]:{server.port}" in server.requests[0]


def test_a_host_in_another_alphabet_is_looked_up_in_ascii():
    assert Server("http://bücher.example").host == "xn--bcher-kva.example"
    with pytest.raises(BadUsage):
        Server(f"http://{'ü' * 100}.example")


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1 that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "server.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_https_trusts_the_named_certificates_and_no_others(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = Plain(OK, tls=tls)

    with server.listener:
        with Doors(server.server, trusted_certificates(server.server, certificate)) as doors:
            ask(doors)
        for stranger in (trusted_certificates(server.server, None), None):
            with Doors(server.server, stranger) as doors, pytest.raises(ServerUnreachable, match=r"(?i)certificate"):
                ask(doors)

    assert len(server.requests) == 1
