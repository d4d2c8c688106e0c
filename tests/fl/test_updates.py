"""Updates: what keeps every rule is counted once; every broken rule is told by its code, and the run goes on."""

import hashlib
import math
from contextlib import contextmanager

import msgspec
import pytest
import torch

from edge.identity import AUTH_CONTEXT, SigningKey
from edge.weights import norm
from edge.wire import encode, read_file
from fl import devices, files, runs, updates
from fl.assignments import give_up
from fl.coordination import advance
from fl.exceptions import Conflict, NotFound, TooLarge, UpdateRefused
from fl.models import Assignment, Event, GlobalModel, Update
from fl.rounds import newest_model
from fl.signals import ticked
from fl.tasks import spec_of_task
from tests.builders import NOW, at, current_round, fleet, person, started_run, step
from tests.fl.threads import at_once

pytestmark = pytest.mark.django_db


def delta(**changes):
    """Return a small delta of the task `linear`."""
    return {"weight": torch.full((1, 4), 0.01), "bias": torch.tensor([0.02])} | changes


@pytest.fixture
def training():
    """A run of one round that three devices train; two updates are enough."""
    devices = fleet(3)
    run = started_run(cohort_size=3, quorum=2, rounds=1, max_update_norm=5.0)
    step(run)
    return run, devices


def told(stream, event):
    """Return the payloads of one kind in a stream, oldest first."""
    rows = Event.objects.filter(stream=stream, event=event).order_by("seq")
    return [msgspec.json.decode(row.data) for row in rows]


@contextmanager
def ticks():
    """Collect what is ticked meanwhile."""
    collected = []

    def take(tick, **_):
        collected.append(tick)

    ticked.connect(take)
    try:
        yield collected
    finally:
        ticked.disconnect(take)


def files_of(assignment):
    """Return the names of the update files that are kept of an assignment."""
    return [path.name for path in files.local_path("updates").glob(f"*/{assignment.pk}-*")]


# ── what is accepted ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_update_is_stored_whole_with_the_exact_manifest(training):
    _, (sender, *_) = training
    data = encode(delta())
    manifest = sender.manifest(data, num_examples=40, metrics={"loss": 0.5, "accuracy": 0.75})

    receipt = sender.send(data=data, manifest=manifest, now=at(3))

    assert (receipt.state, receipt.reason, receipt.received_at) == ("accepted", "", at(3))
    update = Update.objects.get()
    assert bytes(update.manifest) == manifest
    assert (update.state, update.code, update.num_examples, update.size) == ("accepted", "", 40, len(data))
    assert update.digest == hashlib.sha256(data).hexdigest()
    assert update.metrics == {"loss": 0.5, "accuracy": 0.75}
    assert update.norm == norm(delta())
    assert files.local_path(update.file).read_bytes() == data
    assignment = sender.assignment()
    assert (assignment.state, assignment.progress, assignment.ended_at) == ("accepted", 1.0, at(3))


def test_an_accepted_update_is_told_to_people_with_its_device_and_counted_for_followers_without(training):
    run, (sender, *_) = training

    with ticks() as collected:
        sender.send(delta(), metrics={"loss": 0.5}, num_examples=40)

    (progress,) = [payload for payload in told("system", "training_progress") if payload["phase"] == "accepted"]
    assert (progress["device_id"], progress["device_name"]) == (sender.device.pk, sender.device.name)
    assert (progress["num_examples"], progress["metrics"], progress["progress"]) == (40, {"loss": 0.5}, 1.0)
    (tick,) = collected
    count = msgspec.json.decode(tick.data)
    assert tick.stream == run.stream
    assert (count["phase"], count["updates_received"], count["progress"]) == ("training", 1, 1 / 3)
    assert count["assignment_id"] is None
    assert sender.device.name not in tick.data


def test_metrics_may_be_absent_and_a_zero_delta_is_a_delta(training):
    _, (sender, *_) = training

    receipt = sender.send({name: torch.zeros_like(tensor) for name, tensor in delta().items()}, metrics={})

    assert receipt.state == "accepted"
    assert Update.objects.get().norm == 0.0


def test_an_update_may_come_from_any_open_state(training):
    _, (first, second, third) = training
    Assignment.objects.filter(device=second.device).update(state="training")
    Assignment.objects.filter(device=third.device).update(state="uploading")

    assert {device.send(delta()).state for device in (first, second, third)} == {"accepted"}


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


def manifest_says(**changes):
    return lambda sender: sender.send(delta(), **changes)


def signed_by_another_key(sender):
    data = encode(delta())
    manifest = sender.manifest(data)
    return sender.send(
        data=data, manifest=manifest, signature=SigningKey.generate().sign(manifest, b"qflare/v1/update")
    )


def signed_for_another_purpose(sender):
    data = encode(delta())
    manifest = sender.manifest(data)
    return sender.send(data=data, manifest=manifest, signature=sender.key.sign(manifest, AUTH_CONTEXT))


def signature_tampered_with(sender):
    data = encode(delta())
    manifest = sender.manifest(data)
    signature = bytearray(sender.key.sign(manifest, b"qflare/v1/update"))
    signature[100] ^= 1
    return sender.send(data=data, manifest=manifest, signature=bytes(signature))


def manifest_tampered_with(sender):
    data = encode(delta())
    manifest = sender.manifest(data, num_examples=40)
    signature = sender.key.sign(manifest, b"qflare/v1/update")
    return sender.send(data=data, manifest=manifest.replace(b":40,", b":99,"), signature=signature)


def signed_text(text):
    return lambda sender: sender.send(delta(), manifest=text)


def weights(**changes):
    return lambda sender: sender.send(delta(**changes), num_examples=40)


def truncated_with_a_true_manifest(sender):
    return sender.send(data=encode(delta())[:-2])


def one_byte_changed(sender):
    data = encode(delta())
    manifest = sender.manifest(data)
    return sender.send(data=data[:-1] + bytes([data[-1] ^ 1]), manifest=manifest)


def shorter_than_the_manifest_says(sender):
    data = encode(delta())
    return sender.send(data=data[:-2], manifest=sender.manifest(data))


def without_a_tensor(sender):
    return sender.send({"weight": delta()["weight"]})


def not_safetensors(sender):
    return sender.send(data=b"\x08\0\0\0\0\0\0\0not json")


REFUSALS = {
    "signed with another key": (signed_by_another_key, "bad_signature", "not signed with this device's key"),
    "signed for another purpose": (signed_for_another_purpose, "bad_signature", "not signed"),
    "a tampered signature": (signature_tampered_with, "bad_signature", "not signed"),
    "a tampered manifest": (manifest_tampered_with, "bad_signature", "not signed"),
    "no manifest": (signed_text(b""), "bad_manifest", "cannot be read"),
    "a manifest that is no JSON": (signed_text(b"{"), "bad_manifest", "cannot be read"),
    "a manifest with a field too few": (signed_text(b'{"algorithm":"ML-DSA-65"}'), "bad_manifest", "protocol"),
    "a manifest that is too long": (signed_text(b" " * 9000), "bad_manifest", "more than 8192 bytes"),
    "another algorithm": (manifest_says(algorithm="none"), "wrong_manifest", "algorithm none; it must be ML-DSA-65"),
    "another protocol": (manifest_says(protocol="qflare.v2"), "wrong_manifest", "protocol qflare.v2"),
    "another device": (manifest_says(device_id=2**40), "wrong_manifest", "device_id"),
    "another run": (manifest_says(run_id=2**40), "wrong_manifest", "run_id"),
    "another round": (manifest_says(round=7), "wrong_manifest", "round 7; it must be 1"),
    "another assignment": (manifest_says(assignment_id=2**40), "wrong_manifest", "assignment_id"),
    "another base": (manifest_says(base_digest="0" * 64), "wrong_manifest", "base_digest"),
    "a size that is not the file's": (manifest_says(size=17), "wrong_size", "the manifest says 17"),
    "fewer bytes than the manifest says": (shorter_than_the_manifest_says, "wrong_size", "bytes arrived"),
    "a digest that is not the file's": (manifest_says(update_digest="0" * 64), "wrong_digest", "SHA-256"),
    "one byte changed on the way": (one_byte_changed, "wrong_digest", "SHA-256"),
    "a digest that is none": (manifest_says(update_digest="0" * 65), "bad_manifest", "update_digest"),
    "a size that cannot be": (manifest_says(size=-1), "bad_manifest", "size"),
    "no examples": (manifest_says(num_examples=0), "bad_num_examples", "num_examples is 0"),
    "fewer than no examples": (manifest_says(num_examples=-5), "bad_num_examples", "num_examples is -5"),
    "more examples than there are": (manifest_says(num_examples=2**41), "bad_num_examples", "num_examples"),
    "a metric out of all bounds": (manifest_says(metrics={"loss": 1e200}), "bad_metrics", "loss"),
    "a metric whose name cannot be shown": (manifest_says(metrics={"lo\0ss": 1.0}), "bad_metrics", "name"),
    "another shape": (weights(weight=torch.zeros(4, 1)), "wrong_shape", "weight"),
    "another dtype": (weights(weight=torch.zeros(1, 4, dtype=torch.float64)), "wrong_dtype", "weight"),
    "a tensor too many": (weights(extra=torch.zeros(1)), "wrong_names", "extra"),
    "a tensor too few": (without_a_tensor, "wrong_names", "bias"),
    "NaN": (weights(bias=torch.tensor([math.nan])), "not_finite", "bias"),
    "an infinity": (weights(bias=torch.tensor([-math.inf])), "not_finite", "bias"),
    "too long a norm": (weights(bias=torch.tensor([6.0])), "norm_too_large", "at most 5"),
    "truncated": (truncated_with_a_true_manifest, "truncated", "bytes"),
    "not safetensors": (not_safetensors, "bad_header", "JSON"),
}


@pytest.mark.parametrize(("send", "code", "fact"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_broken_rule_is_refused_with_its_code_kept_and_told_and_the_run_goes_on(training, send, code, fact):
    run, (sinner, *others) = training

    with pytest.raises(UpdateRefused) as refusal:
        send(sinner)

    # The reason is the answer, the row, the assignment's, and the notice to people alike.
    assert refusal.value.reason_code == code
    assert fact in refusal.value.message
    update = Update.objects.get()
    assert (update.state, update.code, update.reason) == ("rejected", code, refusal.value.message)
    assert (update.file, update.norm, update.received_at) == ("", None, NOW)
    assignment = sinner.assignment()
    assert (assignment.state, assignment.reason, assignment.ended_at) == ("rejected", refusal.value.message, NOW)
    (notice,) = told("system", "error_notification")
    assert (notice["code"], notice["detail"]) == (code, refusal.value.message)
    assert (notice["device_id"], notice["run_id"], notice["round"]) == (sinner.device.pk, run.pk, 1)
    # Nothing of it is kept or learned.
    assert files_of(assignment) == []
    assert list(GlobalModel.objects.values_list("version", flat=True)) == [0]
    assert told(run.stream, "fl_status_update")[-1]["updates_lost"] == 1
    # The rest completes the round.
    for other in others:
        other.send()
    step(run)
    run.refresh_from_db()
    assert run.state == "completed"
    assert newest_model(run).round.device_metrics["loss"]["mean"] > 0
    assert told(run.stream, "model_aggregation")[-1]["updates_rejected"] == 1


def test_a_number_that_json_cannot_hold_is_no_manifest(training):
    _, (sender, *_) = training
    data = encode(delta())
    manifest = sender.manifest(data, metrics={"loss": 0.5}).replace(b"0.5", b"NaN")

    with pytest.raises(UpdateRefused) as refusal:
        sender.send(data=data, manifest=manifest)

    assert refusal.value.reason_code == "bad_manifest"


def test_an_update_that_is_too_large_is_rejected_before_it_is_whole(training):
    run, (sender, *others) = training
    limit = updates.size_limit(sender.assignment())
    data = encode(delta())
    manifest = sender.manifest(data)
    refusal = TooLarge(f"more than {limit} bytes")

    with pytest.raises(TooLarge):
        updates.reject_update(
            assignment=updates.assignment_of(sender.device.pk, sender.assignment().pk),
            manifest=manifest,
            signature=sender.key.sign(manifest, b"qflare/v1/update"),
            refusal=refusal,
            now=at(1),
        )

    update = Update.objects.get()
    assert (update.state, update.code, update.reason) == ("rejected", "too_large", f"more than {limit} bytes")
    assert sender.assignment().state == "rejected"
    for other in others:
        other.send()
    step(run)
    run.refresh_from_db()
    assert run.state == "completed"


def test_the_limit_lets_an_honest_update_pass(training):
    _, (sender, *_) = training

    assert len(encode(delta())) < updates.size_limit(sender.assignment()) < 100_000


def test_too_large_again_is_refused_again_and_changes_nothing(training):
    _, (sender, *_) = training
    sender.send(delta())
    before = Update.objects.values().get()

    with pytest.raises(TooLarge):
        updates.reject_update(
            assignment=updates.assignment_of(sender.device.pk, sender.assignment().pk),
            manifest=b"{}",
            signature=b"",
            refusal=TooLarge("more"),
            now=at(1),
        )

    assert Update.objects.values().get() == before
    assert sender.assignment().state == "accepted"


def test_another_devices_assignment_is_not_found(training):
    _, (sender, other, _) = training

    with pytest.raises(NotFound):
        updates.assignment_of(other.device.pk, sender.assignment().pk)
    assert not Update.objects.exists()


# ── the same again ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_update_again_answers_the_same_and_counts_once(training):
    _, (sender, *_) = training
    data = encode(delta())
    manifest = sender.manifest(data)
    first = sender.send(data=data, manifest=manifest, now=at(1))
    events_before = Event.objects.count()

    again = sender.send(data=data, manifest=manifest, now=at(9))

    assert again == first
    assert Update.objects.count() == 1
    assert Event.objects.count() == events_before


def test_another_update_for_the_same_assignment_is_a_conflict_and_the_first_stays(training):
    _, (sender, *_) = training
    sender.send(delta())
    before = Update.objects.values().get()

    with pytest.raises(Conflict, match="another update was sent"):
        sender.send(delta(bias=torch.tensor([0.5])))

    assert Update.objects.values().get() == before


@pytest.mark.parametrize("manifest", [b"{", b" " * 9000], ids=["short", "longer than is kept"])
def test_a_rejected_update_again_is_refused_alike(training, manifest):
    _, (sender, *_) = training
    refusals = []

    for _ in range(2):
        with pytest.raises(UpdateRefused) as refusal:
            sender.send(delta(), manifest=manifest)
        refusals.append((refusal.value.reason_code, refusal.value.message))

    assert refusals[0] == refusals[1]
    assert Update.objects.count() == 1


def test_a_good_update_after_a_rejected_one_is_a_conflict(training):
    _, (sender, *_) = training
    with pytest.raises(UpdateRefused):
        sender.send(delta(bias=torch.tensor([math.nan])))

    with pytest.raises(Conflict):
        sender.send(delta())

    assert sender.assignment().state == "rejected"


def test_the_same_update_after_its_round_is_over_answers_the_same(training):
    run, senders = training
    kept = []
    for sender in senders:
        data = encode(delta())
        manifest = sender.manifest(data)
        kept.append((sender, data, manifest, sender.send(data=data, manifest=manifest)))
    step(run)

    for sender, data, manifest, receipt in kept:
        assert sender.send(data=data, manifest=manifest, now=at(99)) == receipt


# ── too late ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_update_keeps_its_manifest_only(training):
    run, (late, first, second) = training
    data = encode(delta())
    manifest = late.manifest(data, metrics={"loss": 0.25})
    first.send()
    second.send()
    advance(current_round(run).pk, lambda: at(60))
    models = list(GlobalModel.objects.values())

    receipt = late.send(data=data, manifest=manifest, now=at(61))

    assert receipt.state == "late"
    assert "the round had closed" in receipt.reason
    update = Update.objects.get(assignment=late.assignment())
    assert (update.state, update.file, bytes(update.manifest), update.norm) == ("late", "", manifest, None)
    assert (update.metrics, update.received_at) == ({"loss": 0.25}, at(61))
    assert (late.assignment().state, late.assignment().ended_at) == ("late", at(61))
    assert files_of(late.assignment()) == []
    assert list(GlobalModel.objects.values()) == models
    assert late.send(data=data, manifest=manifest, now=at(62)) == receipt


def test_an_update_after_the_run_was_stopped_is_late(training):
    run, (sender, *_) = training
    runs.stop_run(run=run, now=at(1))

    receipt = sender.send(delta(), now=at(2))

    assert receipt.state == "late"
    assert sender.assignment().state == "late"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size": -1}, "bad_manifest"),
        ({"update_digest": "d" * 300}, "bad_manifest"),
        ({"round": 2}, "wrong_manifest"),
        ({"num_examples": 0}, "bad_num_examples"),
    ],
)
def test_a_late_update_with_a_wrong_manifest_is_refused_and_nothing_of_it_kept(training, changes, code):
    run, (sender, *_) = training
    runs.stop_run(run=run, now=at(1))

    with pytest.raises(UpdateRefused) as refusal:
        sender.send(delta(), now=at(2), **changes)

    assert refusal.value.reason_code == code
    assert not Update.objects.exists()
    assert sender.assignment().state == "cancelled"


def test_an_update_of_a_device_that_gave_up_is_a_conflict(training):
    _, (sender, *_) = training
    give_up(device=sender.device, assignment_id=sender.assignment().pk, reason="no data", now=at(1))

    with pytest.raises(Conflict, match="failed"):
        sender.send(delta(), now=at(2))

    assert sender.assignment().state == "failed"
    assert files_of(sender.assignment()) == []


# ── at the same time ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_paused_while_an_update_is_checked_is_not_told_as_running():
    senders = fleet(2)
    run = started_run()
    step(run)

    class PausingFile(files.ReceivedFile):
        """Stands for a slow check: the run is paused once the update's rows have been read."""

        @property
        def digest(self):
            if run.state == "running":
                paused = runs.pause_run(run=run, now=at(1), by=None)
                run.state = paused.state
            return super().digest

    file = PausingFile()
    data = encode(delta(bias=torch.tensor([math.nan])))
    file.write(data)
    file.complete()
    manifest = senders[0].manifest(data)
    with pytest.raises(UpdateRefused):
        updates.accept_update(
            assignment=updates.assignment_of(senders[0].device.pk, senders[0].assignment().pk),
            manifest=manifest,
            signature=senders[0].key.sign(manifest, b"qflare/v1/update"),
            file=file,
            now=at(2),
        )

    told_states = [(status["state"], status["updates_lost"]) for status in told(run.stream, "fl_status_update")]
    assert told_states[-2:] == [("paused", 0), ("paused", 1)]


@pytest.mark.django_db(transaction=True)
def test_the_same_update_twice_at_once_is_stored_once_and_answered_alike():
    sender, _ = fleet(2)
    step(started_run())
    data = encode(delta())
    manifest = sender.manifest(data)

    outcomes = at_once(*[lambda: sender.send(data=data, manifest=manifest)] * 4)

    assert outcomes == [outcomes[0]] * 4
    assert outcomes[0].state == "accepted"
    update = Update.objects.get()
    assert files.local_path(update.file).read_bytes() == data


@pytest.mark.django_db(transaction=True)
def test_the_same_late_update_twice_at_once_is_noted_once_and_answered_alike():
    sender, _ = fleet(2)
    run = started_run()
    step(run)
    data = encode(delta())
    manifest = sender.manifest(data)
    runs.stop_run(run=run, now=at(1))

    outcomes = at_once(*[lambda: sender.send(data=data, manifest=manifest)] * 4)

    assert outcomes == [outcomes[0]] * 4
    assert outcomes[0].state == "late"
    assert Update.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_bad_update_twice_at_once_is_rejected_once_and_refused_alike():
    sender, _ = fleet(2)
    step(started_run())

    outcomes = at_once(*[lambda: sender.send(delta(), manifest=b"{")] * 4)

    assert {(type(outcome), outcome.reason_code) for outcome in outcomes} == {(UpdateRefused, "bad_manifest")}
    assert Update.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_different_updates_at_once_one_is_stored():
    sender, _ = fleet(2)
    step(started_run())

    outcomes = at_once(
        lambda: sender.send(delta(bias=torch.tensor([0.1]))), lambda: sender.send(delta(bias=torch.tensor([0.2])))
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "UpdateReceipt"]
    stored = read_file(files.local_path(Update.objects.get().file), spec_of_task("linear"))
    assert stored["bias"].item() in (pytest.approx(0.1), pytest.approx(0.2))


@pytest.mark.django_db(transaction=True)
def test_a_device_that_is_barred_while_its_update_arrives_ends_in_one_state():
    sender, other = fleet(2)
    run = started_run()
    step(run)
    ada = person("ada", "operator")
    let_in = updates.assignment_of(sender.device.pk, sender.assignment().pk)

    sent, barred = at_once(
        lambda: sender.send(delta(), assignment=let_in),
        lambda: devices.suspend(device=sender.device, reason="", now=at(1), by=ada),
    )

    assert barred.state == "suspended"
    assert (sent.state, sender.assignment().state) in {("accepted", "accepted"), ("late", "late")}
    assert other.assignment().state == "assigned"
