"""A device works through everything that can happen to its server, its socket and itself."""

import json
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from edge import keeper
from edge.config import DeviceSettings
from edge.device import Device
from edge.enroll import enroll, read_token
from edge.errors import Barred, HomeUnusable, NotEnrolled, TaskUnusable
from edge.http import Doors, Server
from edge.protocol import client
from edge.protocol import server as wire_server
from edge.store import Home
from edge.tasks import DataSource, TrainingSettings, find_task, initial_weights, task_spec
from edge.training import train
from edge.weights import weights_digest
from edge.wire import decode, read_file
from tests.edge.little_server import PLAN, LittleServer, Notes

LINEAR = DeviceSettings(tasks=("linear",))
ENDLESS = msgspec.structs.replace(PLAN, local_epochs=1_000_000)


@pytest.fixture
def server():
    little = LittleServer()
    yield little
    little.stop()


@pytest.fixture
def home(server, tmp_path):
    return enrolled(server, tmp_path / "home")


def enrolled(server, path):
    with Doors(Server(server.url), None) as doors:
        enroll(Home(path), doors, read_token(server.token()), path.name)
    return path


def progress_heard(server):
    return [heard for heard in server.devices[1].heard if isinstance(heard, client.Progress)]


def test_an_update_is_what_training_from_the_seed_gives(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        assignment = server.assign(1, base)
        notes.wait_for("update")

    received = server.updates[0]
    task = find_task("linear")
    examples = task.training_examples(DataSource())
    plan = TrainingSettings(**msgspec.structs.asdict(PLAN))
    expected = train(task, examples, initial_weights(task, 1), plan, lambda progress: None, lambda: False)
    assert weights_digest(decode(received.delta, task_spec(task))) == weights_digest(expected.delta)
    assert received.manifest.assignment_id == assignment.assignment_id
    assert received.manifest.base_digest == base
    assert received.manifest.num_examples == len(examples)
    assert received.manifest.metrics == expected.metrics
    assert list((home / "updates").iterdir()) == []


def test_a_device_in_no_run_keeps_the_newest_model(server, home):
    first, second = server.add_weights(seed=1), server.add_weights(seed=2)
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.publish(first, version=1)
        notes.wait_for("model", 1)
        server.publish(second, version=2)
        notes.wait_for("model", 2)

    kept = read_file(home / "models" / "run-1.safetensors", task_spec(find_task("linear")))
    assert weights_digest(kept) == second
    said = json.loads((home / "models" / "run-1.json").read_bytes())
    assert said == {
        "run": 1, "task": "linear", "version": 2, "digest": second, "file": "run-1.safetensors"
    }  # fmt: skip


def test_of_models_that_follow_each_other_fast_few_are_kept_and_the_newest_in_the_end(server, home):
    digests = [server.add_weights(seed=number) for number in range(1, 21)]
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        for version, digest in enumerate(digests, start=1):
            server.publish(digest, version=version)
        # The first may be overtaken before it is here.
        if notes.wait_for("model").facts["version"] != 20:
            notes.wait_for("model", 2)

    assert json.loads((home / "models" / "run-1.json").read_bytes())["version"] == 20
    assert len(notes.of("model")) <= 2


def test_training_from_a_version_and_keeping_it_is_one_download(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.publish(base)
        server.assign(1, base)
        notes.wait_for("update")
        notes.wait_for("model")

    assert server.requests.count(f"GET /api/v1/weights/{base}/") == 1


def test_a_model_published_while_the_device_was_away_comes_with_the_snapshot(server, home):
    server.publish(server.add_weights(), version=4)
    notes = Notes()

    with Device(home, LINEAR, notes):
        notes.wait_for("model")

    assert json.loads((home / "models" / "run-1.json").read_bytes())["version"] == 4


def test_a_model_that_is_announced_again_while_it_is_fetched_is_still_kept(server, home, monkeypatch):
    monkeypatch.setattr(keeper, "KEEP_SECONDS", 0.0)
    server.hold_downloads, server.busy_downloads = threading.Event(), 1
    digest = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.publish(digest)
        server.wait_until(lambda: f"GET /api/v1/weights/{digest}/" in server.requests)
        server.close_sockets(4008)
        # The acknowledgement follows the models of the second snapshot.
        server.wait_until(lambda: [type(heard) for heard in server.devices[1].heard].count(client.Ack) == 2)
        server.hold_downloads.set()
        notes.wait_for("model")

    assert len(notes.of("model")) == 1


def test_a_model_of_a_task_that_is_not_offered_is_left_alone(server, home):
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.publish(server.add_weights("digits"), task="digits", run=2)
        server.publish(server.add_weights("linear"), task="linear", run=3)
        notes.wait_for("model")

    assert [path.name for path in sorted((home / "models").iterdir())] == ["run-3.json", "run-3.safetensors"]


def test_a_device_told_not_to_keep_models_keeps_none(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, DeviceSettings(tasks=("linear",), keep_model=False), notes):
        server.wait_connected()
        server.publish(base)
        server.assign(1, base)
        notes.wait_for("update")

    assert not (home / "models").exists()


def test_a_model_that_is_not_its_digest_is_not_kept(server, home):
    base = server.add_weights()
    server.damage_weights = True
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.publish(base)
        problem = notes.wait_for("problem")

    assert "digest" in problem.text
    assert not (home / "models").exists()
    assert list((home / "weights").iterdir()) == []


def test_the_owner_s_command_runs_after_each_model_and_may_fail(server, home, tmp_path):
    script = tmp_path / "on model.sh"
    script.write_text(
        '#!/bin/sh\necho "$QFLARE_MODEL_VERSION $QFLARE_MODEL_RUN $QFLARE_MODEL_TASK $QFLARE_MODEL_DIGEST" >> "$1"\n'
        'cmp -s "$QFLARE_MODEL_PATH" /dev/null && exit 1\nexit "$QFLARE_MODEL_VERSION"\n'
    )
    script.chmod(0o755)
    log = tmp_path / "log"
    first, second = server.add_weights(seed=1), server.add_weights(seed=2)
    notes = Notes()

    with Device(home, DeviceSettings(tasks=("linear",), on_model=(str(script), str(log))), notes):
        server.wait_connected()
        server.publish(first, version=1)
        failed = notes.wait_for("command", 1)
        server.publish(second, version=2)
        notes.wait_for("command", 2)

    assert "ended with 1" in failed.text
    assert log.read_text() == f"1 1 linear {first}\n2 1 linear {second}\n"


def test_a_command_that_is_not_there_is_reported_and_the_device_works_on(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, DeviceSettings(tasks=("linear",), on_model=("/no/such/program",)), notes):
        server.wait_connected()
        server.publish(base)
        failed = notes.wait_for("command")
        server.assign(1, base)
        notes.wait_for("update")

    assert "/no/such/program" in failed.text


def test_training_goes_on_while_the_socket_is_lost(server, home):
    base = server.add_weights()
    notes = Notes()
    long = msgspec.structs.replace(PLAN, local_epochs=150)

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=long)
        notes.wait_for("assignment")
        server.close_sockets(4008)
        notes.wait_for("disconnected")
        notes.wait_for("update")

    assert len(notes.of("assignment")) == 1
    assert notes.of("cancelled") == []
    assert server.updates[0].manifest.num_examples == 512


def test_a_cancelled_training_ends_and_the_next_begins(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=ENDLESS)
        server.wait_until(lambda: progress_heard(server))
        server.cancel(1)
        notes.wait_for("cancelled")
        following = server.assign(1, base, round_number=2)
        notes.wait_for("update")

    assert [received.assignment_id for received in server.updates] == [following.assignment_id]


def test_an_assignment_that_the_snapshot_no_longer_names_is_given_up(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=ENDLESS)
        notes.wait_for("assignment")
        server.devices[1].assignment = None
        server.close_sockets(4008)
        cancelled = notes.wait_for("cancelled")

    assert "no longer waits" in cancelled.text


def test_the_same_assignment_heard_twice_is_trained_once(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        assignment = server.assign(1, base)
        server.say(1, assignment)
        notes.wait_for("update")
        server.say(1, assignment)
        server.assign(1, base, round_number=2)
        notes.wait_for("update", 2)

    assert [received.assignment_id for received in server.updates] == [1, 2]


def test_an_interrupted_training_is_done_again_after_a_restart_and_gives_the_same(server, home):
    base = server.add_weights()
    plan = msgspec.structs.replace(PLAN, local_epochs=150)
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=plan)
        server.wait_until(lambda: progress_heard(server))
    assert server.updates == []
    with Device(home, LINEAR, notes):
        notes.wait_for("update")
        server.assign(1, base, plan=plan, round_number=2)
        notes.wait_for("update", 2)

    assert server.updates[0].delta == server.updates[1].delta


def test_an_update_is_sent_after_the_server_was_away(server, home):
    base = server.add_weights()
    notes = Notes()
    long = msgspec.structs.replace(PLAN, local_epochs=100)

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=long)
        notes.wait_for("assignment")
        server.stop()
        notes.wait_for("trained")
        server.start()
        notes.wait_for("update")

    assert [received.assignment_id for received in server.updates] == [1]


def test_an_unacknowledged_update_outlives_a_killed_device_and_is_sent_again_as_it_was(server, home):
    base = server.add_weights()
    server.hold_uploads = threading.Event()
    notes = Notes()

    process = subprocess.Popen([sys.executable, "-m", "edge", "run", "--home", home, "--task", "linear"])
    try:
        server.wait_connected()
        server.assign(1, base)
        server.wait_until(lambda: server.updates)
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in (home / "updates").iterdir()) == ["1.json", "1.safetensors"]
    server.hold_uploads.set()
    with Device(home, LINEAR, notes):
        notes.wait_for("update")

    first, second = server.updates
    assert (first.manifest_bytes, first.delta) == (second.manifest_bytes, second.delta)
    assert notes.of("trained") == []
    assert list((home / "updates").iterdir()) == []


def test_an_update_that_is_answered_while_the_device_connects_is_not_trained_again(server, home):
    base = server.add_weights()
    server.hold_uploads = threading.Event()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base)
        server.wait_until(lambda: server.updates)
        server.hold_welcome = threading.Event()
        server.close_sockets(4008)
        server.wait_until(lambda: len(server.devices[1].hellos) == 2)
        server.hold_uploads.set()
        notes.wait_for("update")
        server.hold_welcome.set()
        server.wait_connected()
        server.assign(1, base, round_number=2)
        notes.wait_for("update", 2)

    assert [note.facts["round"] for note in notes.of("assignment")] == [1, 2]


def test_a_busy_server_is_asked_again(server, home):
    base = server.add_weights()
    server.busy_uploads = 2
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base)
        notes.wait_for("update")

    assert server.requests.count("PUT /api/v1/assignments/1/update/") == 3


def test_an_expired_token_is_renewed_by_a_new_connection(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.expire_tokens()
        server.assign(1, base)
        notes.wait_for("update")

    assert len(server.devices[1].hellos) == 2


@pytest.mark.parametrize("answer", ["late", "refused"])
def test_every_answer_ends_an_update(server, home, answer):
    base = server.add_weights()
    notes = Notes()
    server.late = answer == "late"
    server.refuse_update = (422, "wrong_shape", "tensor 'weight' is too small") if answer == "refused" else None

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base)
        note = notes.wait_for("update")

    assert note.facts["state"] == ("late" if answer == "late" else "rejected")
    assert note.facts["reason"] == ("" if answer == "late" else "tensor 'weight' is too small")
    assert list((home / "updates").iterdir()) == []


def test_a_device_that_is_suspended_keeps_its_update(server, home):
    base = server.add_weights()
    server.refuse_update = (403, "device_barred", "this device is suspended")
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base)
        notes.wait_for("problem")
    server.refuse_update = None
    with Device(home, LINEAR, notes):
        notes.wait_for("update")

    assert [received.assignment_id for received in server.updates] == [1]


@pytest.mark.parametrize(
    ("task", "digest", "plan", "reason"),
    [
        ("digits", None, PLAN, "not offered"),
        ("linear", "0" * 64, PLAN, "other weights"),
        ("linear", None, msgspec.structs.replace(PLAN, learning_rate=1e30), "a smaller learning rate"),
        ("linear", None, msgspec.structs.replace(PLAN, batch_size=0), "batch_size"),
    ],
)
def test_what_cannot_be_trained_is_given_up_with_its_reason(server, home, task, digest, plan, reason):
    base = server.add_weights()

    with Device(home, LINEAR, Notes()):
        server.wait_connected()
        server.assign(1, base, task=task, task_digest_text=digest, plan=plan)
        server.wait_until(lambda: server.failures)

    assert server.failures[0][0] == 1
    assert reason in server.failures[0][1]
    assert server.updates == []


def test_weights_that_the_server_does_not_have_end_the_assignment(server, home):
    with Device(home, LINEAR, Notes()):
        server.wait_connected()
        server.assign(1, "f" * 64)
        server.wait_until(lambda: server.failures)

    assert "no such weights" in server.failures[0][1]


def test_trainings_that_follow_each_other_tell_of_progress_at_most_twice_a_second_together(server, home):
    base = server.add_weights()
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        started = time.monotonic()
        for number in range(1, 11):
            server.assign(1, base, round_number=number)
            notes.wait_for("update", number)
        seconds = time.monotonic() - started

    assert 1 <= len(progress_heard(server)) <= 2 + 2 * seconds


def test_progress_is_told_at_most_twice_a_second(server, home):
    base = server.add_weights()
    plan = msgspec.structs.replace(PLAN, local_epochs=400)
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        server.assign(1, base, plan=plan)
        notes.wait_for("update")

    told = progress_heard(server)
    seconds = notes.of("trained")[0].facts["seconds"]
    assert 1 <= len(told) <= 2 + 2 * seconds
    assert all(message.assignment_id == 1 and 0 < message.progress <= 1 for message in told)


def test_a_device_that_is_sent_away_stops(server, home):
    notes = Notes()

    with Device(home, LINEAR, notes) as device:
        server.wait_connected()
        server.close_sockets(4505, wire_server.Bye(code=4505, reason="the device is revoked"))
        with pytest.raises(Barred) as caught:
            device.wait()

    assert caught.value.code == 4505
    assert "the device is revoked" in caught.value.why


def test_a_message_of_the_operators_is_shown(server, home):
    notes = Notes()

    with Device(home, LINEAR, notes):
        server.wait_connected()
        broadcast = wire_server.Broadcast(message="Maintenance at six", sender="olga", audiences=["clients"])
        server.whisper(1, broadcast)
        note = notes.wait_for("notice")

    assert note.text == "olga: Maintenance at six"


def test_two_processes_do_not_share_a_folder(server, home):
    with Device(home, LINEAR, Notes()), pytest.raises(HomeUnusable, match="in use"):
        Device(home, LINEAR, Notes()).start()


def test_a_device_that_is_not_enrolled_does_not_start(tmp_path):
    with pytest.raises(NotEnrolled):
        Device(tmp_path, LINEAR).start()


def test_a_device_without_data_does_not_start(home, tmp_path):
    settings = DeviceSettings(tasks=("linear",), data=tmp_path)

    with pytest.raises(TaskUnusable, match=r"linear\.npz"):
        Device(home, settings).start()


def test_a_stopped_device_leaves_no_thread_behind(server, home):
    before = {thread.name for thread in threading.enumerate() if thread.name.startswith("edge-")}

    with Device(home, LINEAR, Notes()):
        server.wait_connected()
        server.assign(1, server.add_weights(), plan=ENDLESS)

    after = {thread.name for thread in threading.enumerate() if thread.name.startswith("edge-")}
    assert after == before
