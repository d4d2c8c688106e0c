"""The demonstration as a stranger meets it: one command, its output, its exit code, and what it leaves running."""

import json
import os
import re
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.journeys.programs import Program, clean_environment
from tests.journeys.waiting import GIVE_UP_SECONDS, wait_for
from tests.services.ports import free_port


@pytest.fixture
def start_demo(tmp_path):
    """Start the demonstration over a data folder of its own; it ends with the test."""
    started = []

    def start(*options, data=None):
        folder = data or tmp_path / "data"
        environment = clean_environment(QFLARE_DATA_DIR=str(folder))
        program = Program("demo", ["manage.py", "demo", *options], log=tmp_path / "demo.log", environment=environment)
        program.data = folder
        started.append(program)
        return program

    yield start
    for program in started:
        program.stop()
        print(program.last_words())


def left_running(folder):
    """Return the processes whose environment or command names a folder, this one aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            known_by = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
        if str(folder).encode() in known_by:
            found.append(process.name)
    return found


def test_the_demonstration_trains_tells_each_round_and_ends_well(start_demo):
    port = free_port()
    demo = start_demo("--exit", "--rounds", "3", "--port", str(port))

    assert demo.wait(300) == 0, demo.said()
    said = demo.said()
    # No terminal: a line for each round, from the untrained model on.
    rounds = [line for line in said.splitlines() if re.match(r"round +\d+/3", line)]
    assert [re.match(r"round +(\d+)/3", line)[1] for line in rounds] == ["0", "1", "2", "3"]
    assert all("accuracy" in line for line in rounds)
    assert all("5/5 updates" in line for line in rounds[1:])
    assert "Completed" in said
    # The code of the sign-in link is in the fragment, which no server ever sees or logs.
    assert re.search(rf"http://127\.0\.0\.1:{port}/sign-in/#\S{{20,}}", said)
    codes = re.findall(r"/sign-in/#(\S+)", said)
    logs = "".join(path.read_text(errors="replace") for path in (demo.data / "demo").glob("*.log"))
    assert not any(code.rpartition("=")[2] in logs for code in codes)
    # The model is where it says.
    place = Path(re.search(r"(/\S+\.safetensors)", said)[1])
    assert place.is_relative_to(demo.data)
    assert place.stat().st_size > 0
    with closing(sqlite3.connect(demo.data / "qflare.sqlite3")) as database:
        assert database.execute("SELECT state FROM fl_run").fetchall() == [("completed",)]
        assert database.execute("SELECT count(*) FROM fl_device").fetchall() == [(5,)]
        (metrics,) = database.execute("SELECT metrics FROM fl_globalmodel ORDER BY version DESC LIMIT 1").fetchone()
    assert f"{json.loads(metrics)['accuracy']:.4f}" in said
    assert left_running(demo.data) == []


def test_a_second_demonstration_at_another_port_trains_with_the_devices_of_the_first(start_demo):
    options = ("--exit", "--devices", "2", "--rounds", "1", "--task", "linear")
    first = start_demo(*options, "--port", str(free_port()))
    assert first.wait(300) == 0, first.said()

    second = start_demo(*options, "--port", str(free_port()))

    assert second.wait(300) == 0, second.said()
    with closing(sqlite3.connect(second.data / "qflare.sqlite3")) as database:
        assert database.execute("SELECT state FROM fl_run").fetchall() == [("completed",), ("completed",)]
        assert database.execute("SELECT count(*) FROM fl_device").fetchall() == [(2,)]


def test_ctrl_c_in_the_middle_of_the_run_stops_all_that_was_started(start_demo):
    demo = start_demo("--devices", "2", "--rounds", "100000", "--port", str(free_port()))
    wait_for("round 2 is told", lambda: re.search(r"^round +2/", demo.said(), re.MULTILINE), seconds=300, needs=[demo])
    # The demonstration, a server and two devices.
    assert len(left_running(demo.data)) == 4

    # The link signs one in, once.
    address, code = re.search(r"(http://127\.0\.0\.1:\d+)/sign-in/#(\S+)", demo.said()).groups()
    code = code.rpartition("=")[2]
    with httpx.Client(base_url=address, trust_env=False, timeout=GIVE_UP_SECONDS) as browser:
        browser.get("/sign-in/").raise_for_status()
        headers = {"X-CSRFToken": browser.cookies["csrftoken"]}
        assert browser.post("/sign-in/", data={"code": code}, headers=headers).is_redirect
        assert "sessionid" in browser.cookies
    with httpx.Client(base_url=address, trust_env=False, timeout=GIVE_UP_SECONDS) as stranger:
        stranger.get("/sign-in/").raise_for_status()
        headers = {"X-CSRFToken": stranger.cookies["csrftoken"]}
        assert stranger.post("/sign-in/", data={"code": code}, headers=headers).status_code == 403
        assert "sessionid" not in stranger.cookies

    demo.send(signal.SIGINT)
    demo.wait()
    assert left_running(demo.data) == []
    assert "Traceback" not in demo.said()
    # What it stopped is whole: the run is still there, and was going on.
    with closing(sqlite3.connect(demo.data / "qflare.sqlite3")) as database:
        assert database.execute("SELECT state FROM fl_run").fetchall() == [("running",)]


def test_a_taken_port_is_told_in_one_clear_message(start_demo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = start_demo("--exit", "--port", str(port))
        assert demo.wait() not in (0, None)
    assert f"port {port}" in demo.said()
    assert "--port" in demo.said()
    assert "Traceback" not in demo.said()
    assert left_running(demo.data) == []


def test_a_folder_that_cannot_be_written_to_is_told_in_one_clear_message(start_demo, tmp_path):
    # A file stands where the folder should be: nobody can write there, whoever they are.
    (tmp_path / "file").write_text("")
    demo = start_demo("--exit", "--port", str(free_port()), data=tmp_path / "file" / "data")

    assert demo.wait() not in (0, None)
    assert "QFLARE_DATA_DIR" in demo.said()
    assert str(tmp_path / "file") in demo.said()
    assert "Traceback" not in demo.said()
