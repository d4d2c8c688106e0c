"""Many devices in one process are many devices to the server: keys, handshakes and data of their own."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from edge.config import DeviceSettings
from edge.errors import BadUsage, Barred
from edge.fleet import Fleet
from edge.partition import Partition
from edge.store import Home
from edge.tasks import DataSource, TrainingSettings, find_task, initial_weights, task_spec
from edge.training import train
from edge.weights import weights_digest
from edge.wire import decode
from tests.edge.little_server import PATIENCE_SECONDS, PLAN, LittleServer, Notes

ROOT = Path(__file__).parent.parent.parent
COUNT = 5


@pytest.fixture
def server():
    little = LittleServer()
    yield little
    little.stop()


def fleet_of(server, path, count=COUNT, tell=None, **settings):
    tokens = [server.token() for _ in range(count)]
    wanted = DeviceSettings(**{"tasks": ("linear",), "server": server.url, **settings})
    return Fleet(path, count, wanted, tell or Notes(), tokens=tokens, workers=2)


def wait_all_connected(server, count=COUNT):
    server.wait_until(lambda: sum(server.is_connected(device) for device in server.devices) == count)


def test_every_device_has_a_key_a_handshake_and_a_name_of_its_own(server, tmp_path):
    with fleet_of(server, tmp_path):
        wait_all_connected(server)

    assert len({device.public_key for device in server.devices.values()}) == COUNT
    assert len({device.hellos[0].client_nonce for device in server.devices.values()}) == COUNT
    assert sorted(device.name for device in server.devices.values()) == [f"fleet-000{n}" for n in range(1, COUNT + 1)]
    homes = [Home(tmp_path / f"device-000{number}") for number in range(1, COUNT + 1)]
    assert {home.key().public_key for home in homes} == {device.public_key for device in server.devices.values()}


def test_each_trains_on_its_own_piece_and_gives_what_a_single_device_would(server, tmp_path):
    base = server.add_weights()
    notes = Notes()
    partition = Partition("dirichlet", 0, COUNT, alpha=0.5, seed=3)
    with fleet_of(server, tmp_path, tell=notes, partition=partition):
        wait_all_connected(server)
        for device in server.devices:
            server.assign(device, base)
        server.wait_until(lambda: len(server.updates) == COUNT)

    task = find_task("linear")
    plan = TrainingSettings(**msgspec.structs.asdict(PLAN))
    for received in server.updates:
        index = int(server.devices[received.manifest.device_id].name[-4:]) - 1
        piece = Partition("dirichlet", index, COUNT, alpha=0.5, seed=3)
        examples = task.training_examples(DataSource(partition=piece))
        expected = train(task, examples, initial_weights(task, 1), plan, lambda progress: None, lambda: False)
        assert received.manifest.num_examples == len(examples)
        assert weights_digest(decode(received.delta, task_spec(task))) == weights_digest(expected.delta)


def test_weights_are_downloaded_once_and_every_device_keeps_its_model(server, tmp_path):
    base = server.add_weights()
    with fleet_of(server, tmp_path):
        wait_all_connected(server)
        server.publish(base)
        for device in server.devices:
            server.assign(device, base)
        server.wait_until(lambda: len(server.updates) == COUNT)
        kept = [tmp_path / f"device-000{number}" / "models" / "run-1.json" for number in range(1, COUNT + 1)]
        wait_for_files(kept)

    assert server.requests.count(f"GET /api/v1/weights/{base}/") == 1


def has_updates(server, count):
    return len(server.updates) == count


def wait_for_files(paths):
    waiting = threading.Event()
    for _ in range(PATIENCE_SECONDS * 50):
        if all(path.exists() for path in paths):
            return
        waiting.wait(0.02)
    raise AssertionError(f"missing: {[path for path in paths if not path.exists()]}")


def test_a_fleet_that_is_enrolled_starts_again_without_tokens(server, tmp_path):
    with fleet_of(server, tmp_path):
        wait_all_connected(server)
    server.wait_until(lambda: not any(server.is_connected(device) for device in server.devices))

    with Fleet(tmp_path, COUNT, DeviceSettings(tasks=("linear",))):
        wait_all_connected(server)

    assert len(server.devices) == COUNT


def test_a_fleet_comes_back_to_a_server_that_was_away(server, tmp_path):
    base = server.add_weights()
    long = msgspec.structs.replace(PLAN, local_epochs=100)
    with fleet_of(server, tmp_path) as fleet:
        wait_all_connected(server)
        for device in server.devices:
            server.assign(device, base, plan=long)
        server.stop()
        server.start()
        wait_all_connected(server)
        server.wait_until(lambda: {r.manifest.device_id for r in server.updates} == set(server.devices))

        assert fleet.connected <= COUNT


def test_a_device_that_is_sent_away_leaves_the_others_at_work(server, tmp_path):
    base = server.add_weights()
    with fleet_of(server, tmp_path):
        wait_all_connected(server)
        server.close_socket(1, 4505)
        server.wait_until(lambda: not server.is_connected(1))
        for device in list(server.devices)[1:]:
            server.assign(device, base)
        server.wait_until(lambda: len(server.updates) == COUNT - 1)

    assert len(server.devices[1].hellos) == 1


def test_a_fleet_that_is_sent_away_altogether_is_over(server, tmp_path):
    with fleet_of(server, tmp_path) as fleet:
        wait_all_connected(server)
        server.close_sockets(4503)

        with pytest.raises(Barred):
            fleet.wait(PATIENCE_SECONDS)


def test_sockets_and_work_take_few_threads_however_many_devices(server, tmp_path):
    count = 60
    before = threading.active_count()
    with fleet_of(server, tmp_path, count):
        wait_all_connected(server, count)
        during = threading.active_count() - before

    assert during < count / 2


def test_too_few_tokens_are_counted(server, tmp_path):
    settings = DeviceSettings(tasks=("linear",), server=server.url)

    with pytest.raises(BadUsage, match="5 devices of the fleet are not enrolled yet: there are 2 tokens"):
        Fleet(tmp_path, COUNT, settings, tokens=[server.token(), server.token()]).start()


def test_people_read_sums(server, tmp_path):
    base = server.add_weights()
    notes = Notes()
    with fleet_of(server, tmp_path, tell=notes):
        wait_all_connected(server)
        for round_number in (1, 2):
            for device in server.devices:
                server.assign(device, base, round_number=round_number)
            server.wait_until(partial(has_updates, server, COUNT * round_number))
            server.wait_until(lambda: not any(device.assignment for device in server.devices.values()))

    texts = [note.text for note in notes.all]
    assert "5 devices are enrolled." in texts
    assert "5 of 5 devices are connected." in texts
    assert "Round 1 of run 1: 5 accepted." in texts


def test_the_command_runs_a_fleet_until_it_is_told_to_stop(server, tmp_path):
    (tmp_path / "tokens").write_text("\n".join(server.token() for _ in range(3)))
    words = [sys.executable, "-m", "edge", "fleet", server.url, "--devices", "3", "--home", tmp_path / "home"]
    words += ["--tokens-file", tmp_path / "tokens", "--task", "linear", "--name", "sim"]
    process = subprocess.Popen(words, cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    try:
        wait_all_connected(server, 3)
        server.assign(2, server.add_weights())
        server.wait_until(lambda: server.updates)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()

    assert process.returncode == 0, said
    assert "3 of 3 devices are connected." in said
    assert sorted(device.name for device in server.devices.values()) == ["sim-0001", "sim-0002", "sim-0003"]
