"""The command line, as a process: what it says, what it sends before it trusts, and the exit code of each cause."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from edge.protocol.enrollment import TokenText
from edge.store import Home
from tests.edge.little_server import PATIENCE_SECONDS, PLAN, LittleServer
from tests.services.programs import signal_another_thread

ROOT = Path(__file__).parent.parent.parent
LOOPBACK_WITHOUT_A_SERVER = "http://127.0.0.1:9"


@pytest.fixture
def server():
    little = LittleServer()
    yield little
    little.stop()


def command(*arguments, **environment):
    """Return the words and the environment of a command; no variable of this machine leaks in."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("QFLARE_")}
    plain |= {"PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment}
    return [sys.executable, "-m", "edge", *map(str, arguments)], plain


def edge(*arguments, **environment):
    """Run a command to its end."""
    words, variables = command(*arguments, **environment)
    return subprocess.run(words, env=variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


class Running:
    """A command that runs until it is told otherwise; its JSON lines are read as they come."""

    def __init__(self, *arguments, **environment):
        words, variables = command(*arguments, "--json", **environment)
        self.process = subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = []

    def wait_for(self, kind):
        watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.said.append(json.loads(line))
                if self.said[-1]["kind"] == kind:
                    return self.said[-1]
        finally:
            watchdog.cancel()
        raise AssertionError(f"no {kind} in {self.said}: {self.process.stderr.read()}")

    def end(self, number):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, errors


@pytest.fixture
def running():
    """Start commands; what still runs at the end is killed."""
    started = []

    def start(*arguments, **environment):
        started.append(Running(*arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def enrolled(server, home):
    result = edge("enroll", server.url, "--name", "ward-7", "--home", home, QFLARE_TOKEN=server.token())
    assert result.returncode == 0, result.stderr
    return home


def test_help_comes_without_torch_and_gives_an_example_of_each_command():
    code = "import sys, edge.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

    for name in ("enroll", "run", "fleet"):
        result = edge(name, "--help")
        assert result.returncode == 0
        assert f"Example: qflare-edge {name} " in result.stdout


def test_the_exit_codes_are_in_the_help():
    words = " ".join(edge("--help").stdout.split())

    assert "0 done; 1 unexpected; 2 wrong usage" in words
    assert "130 interrupted" in words


def test_the_version_is_told():
    import edge as package

    assert edge("--version").stdout.strip() == package.__version__


def test_enrolling_makes_a_private_key_and_pins_the_server(server, tmp_path):
    home = tmp_path / "home"

    result = edge("enroll", server.url, "--token", server.token(), "--name", "ward-7", "--home", home)

    assert result.returncode == 0
    assert result.stdout == "1\n"
    assert "This is device 1, 'ward-7'" in result.stderr and "Traceback" not in result.stderr
    account = Home(home).account()
    assert account.server_fingerprint == server.key.fingerprint
    assert account.server_key == server.key.public_key
    assert server.devices[1].public_key == Home(home).key().public_key
    assert (home / "key.pem").stat().st_mode & 0o777 == 0o600


def test_enrolling_again_with_the_same_token_and_key_is_harmless(server, tmp_path):
    token = server.token()
    first = edge("enroll", server.url, "--name", "one", "--home", tmp_path, QFLARE_TOKEN=token)

    second = edge("enroll", server.url, "--name", "one", "--home", tmp_path, QFLARE_TOKEN=token)

    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout == "1\n"
    assert len(server.devices) == 1


def test_a_token_may_come_from_a_file_and_answers_may_be_json(server, tmp_path):
    (tmp_path / "token").write_text(f"{server.token()}\n")
    server.state_after_enrolment = "pending"

    result = edge(
        "enroll", server.url, "--token-file", tmp_path / "token", "--name", "one", "--home", tmp_path, "--json"
    )

    said = json.loads(result.stdout)
    assert said["device"] == 1 and said["state"] == "pending" and said["server"] == server.url
    assert "must approve it" in said["text"]


def test_a_used_token_is_not_allowed(server, tmp_path):
    token = server.token()
    edge("enroll", server.url, "--token", token, "--name", "one", "--home", tmp_path / "one")

    result = edge("enroll", server.url, "--token", token, "--name", "two", "--home", tmp_path / "two")

    assert result.returncode == 4
    assert "the token is unknown, used or expired" in result.stderr.lower()
    assert not Home(tmp_path / "two").is_enrolled


def test_a_server_of_another_key_never_sees_the_token(server, tmp_path):
    token = TokenText(id="a", secret="hidden", fingerprint="0" * 64)

    result = edge("enroll", server.url, "--token", token, "--name", "one", "--home", tmp_path)

    assert result.returncode == 4
    assert len(result.stderr.splitlines()) == 3
    assert "is not the one that the token is for" in result.stderr
    assert server.key.fingerprint in result.stderr
    assert server.requests == ["GET /api/v1/server/"]
    assert not (tmp_path / "key.pem").exists()


def test_a_token_is_not_sent_in_the_clear(server, tmp_path):
    result = edge("enroll", "http://learning.example.org", "--token", server.token(), "--home", tmp_path)

    assert result.returncode == 2
    assert "The enrolment token is not sent" in result.stderr
    assert "https" in result.stderr


def test_a_receipt_that_the_server_did_not_sign_is_not_accepted(server, tmp_path):
    server.forge_receipt = True

    result = edge("enroll", server.url, "--token", server.token(), "--name", "one", "--home", tmp_path)

    assert result.returncode == 4
    assert "The receipt" in result.stderr
    assert not Home(tmp_path).is_enrolled


def test_a_folder_of_one_server_is_not_enrolled_with_another(server, tmp_path):
    enrolled(server, tmp_path)
    other = LittleServer()
    try:
        result = edge("enroll", other.url, "--token", other.token(), "--home", tmp_path)
    finally:
        other.stop()

    assert result.returncode == 2
    assert "it belongs to the server at" in result.stderr.lower()
    assert Home(tmp_path).account().server == server.url


def test_a_server_that_is_not_there_is_said_in_three_lines(server, tmp_path):
    result = edge("enroll", LOOPBACK_WITHOUT_A_SERVER, "--token", server.token(), "--home", tmp_path)

    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 3
    assert "127.0.0.1:9" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enroll", "learning.example.org", "--token", "qfe1.a.b.c"], "is no server's address"),
        (["enroll", "https://learning.example.org/path", "--token", "qfe1.a.b.c"], "is no server's address"),
        (["enroll", "http://127.0.0.1:9", "--token", "nonsense"], "copy it whole"),
        (["enroll", "http://127.0.0.1:9"], "there is no enrolment token"),
        (["run", "--partition", "half"], "is no partition"),
        (["run", "--on-model", "notify 'new"], "quotation"),
        (["run"], "belongs to no server yet"),
        (["run", "--threads", "0"], "--threads"),
        (["fly"], "fly"),
        (["fleet", "--devices", "2"], "no server is named"),
        (["fleet", "http://127.0.0.1:9", "--devices", "2"], "2 devices of the fleet are not enrolled yet"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_what_is_wrong(tmp_path, arguments, words):
    result = edge(*arguments, QFLARE_HOME=str(tmp_path))

    assert result.returncode == 2
    assert words.lower() in " ".join(result.stderr.split()).lower()
    assert "Traceback" not in result.stderr


def test_a_setting_that_does_not_exist_is_named(tmp_path):
    (tmp_path / "edge.toml").write_text("thraeds = 2\n")

    result = edge("run", "--home", tmp_path)

    assert result.returncode == 2
    assert "thraeds" in result.stderr


@pytest.mark.parametrize(("arguments", "words"), [(["--task", "weather"], "weather"), (["--data", "."], "digits.npz")])
def test_a_task_or_data_that_cannot_be_used_ends_with_five(server, tmp_path, arguments, words):
    enrolled(server, tmp_path)

    result = edge("run", "--home", tmp_path, *arguments)

    assert result.returncode == 5
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_used_ends_with_six(server, tmp_path):
    enrolled(server, tmp_path)
    (tmp_path / "key.pem").write_text("damaged")

    result = edge("run", "--home", tmp_path, "--task", "linear")

    assert result.returncode == 6
    assert "key.pem" in result.stderr


def test_a_device_that_is_sent_away_ends_with_four(server, tmp_path):
    enrolled(server, tmp_path)
    server.closing = (4505, None)

    result = edge("run", "--home", tmp_path, "--task", "linear")

    assert result.returncode == 4
    assert "suspended or revoked" in result.stderr
    assert len(result.stderr.splitlines()) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_running_device_ends_cleanly_when_told(server, tmp_path, running, number, code):
    enrolled(server, tmp_path)

    device = running("run", "--home", tmp_path, "--task", "linear")
    device.wait_for("connected")
    server.wait_connected()

    assert device.end(number) == (code, "")
    server.wait_until(lambda: not server.is_connected())


def test_a_device_ends_whichever_of_its_threads_is_given_the_signal(server, tmp_path, running):
    enrolled(server, tmp_path)
    device = running("run", "--home", tmp_path, "--task", "linear")
    device.wait_for("connected")

    signal_another_thread(device.process.pid, signal.SIGTERM)

    assert device.process.wait(PATIENCE_SECONDS) == 0


def test_a_device_in_training_ends_cleanly_and_keeps_nothing_half_done(server, tmp_path, running):
    enrolled(server, tmp_path)
    device = running("run", "--home", tmp_path, "--task", "linear")
    device.wait_for("connected")
    server.wait_connected()

    server.assign(1, server.add_weights(), plan=msgspec.structs.replace(PLAN, local_epochs=10**6))
    device.wait_for("assignment")

    assert device.end(signal.SIGTERM) == (0, "")
    assert server.updates == []


def test_a_running_device_trains_and_tells_programs_in_lines_of_json(server, tmp_path, running):
    enrolled(server, tmp_path)
    base = server.add_weights()

    device = running("run", "--home", tmp_path, "--task", "linear", "--partition", "iid:1/4:3")
    device.wait_for("connected")
    server.wait_connected()
    server.assign(1, base)
    said = device.wait_for("update")

    assert said["state"] == "accepted" and said["run"] == 1 and said["round"] == 1
    assert server.updates[0].manifest.num_examples == 128
    assert server.devices[1].hellos[0].tasks[0].num_examples == 128


def test_settings_come_from_flags_then_variables_then_the_file(server, tmp_path, running):
    enrolled(server, tmp_path)
    (tmp_path / "edge.toml").write_text('task = ["linear"]\npartition = "iid:0/2"\nmodel = false\n')

    def examples_with(*arguments, **environment):
        device = running("run", "--home", tmp_path, *arguments, **environment)
        device.wait_for("connected")
        device.end(signal.SIGTERM)
        (offer,) = server.devices[1].hellos[-1].tasks
        return offer.task, offer.num_examples

    assert examples_with() == ("linear", 256)
    assert examples_with(QFLARE_PARTITION="iid:0/4") == ("linear", 128)
    assert examples_with("--partition", "iid:0/8", QFLARE_PARTITION="iid:0/4") == ("linear", 64)


def test_several_tasks_may_be_offered(server, tmp_path, running):
    enrolled(server, tmp_path)

    device = running("run", "--home", tmp_path, "--task", "linear", "--task", "digits")
    device.wait_for("connected")

    server.wait_until(lambda: server.devices[1].hellos)
    assert [offer.task for offer in server.devices[1].hellos[0].tasks] == ["linear", "digits"]


def test_a_device_keeps_trying_while_the_server_is_away(server, tmp_path, running):
    enrolled(server, tmp_path)
    server.stop()

    device = running("run", "--home", tmp_path, "--task", "linear")
    device.wait_for("disconnected")
    server.start()

    device.wait_for("connected")


def test_without_colour_when_asked(server, tmp_path):
    result = edge("enroll", server.url, "--token", server.token(), "--home", tmp_path, NO_COLOR="1", FORCE_COLOR="1")

    assert result.returncode == 0
    assert "\x1b[3" not in result.stderr
