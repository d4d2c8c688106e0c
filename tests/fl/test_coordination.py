"""The driver: each step is done once whoever else tries, a lost claim publishes nothing, and order does not matter."""

import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial

import msgspec
import pytest
import torch
from django.db import OperationalError

from edge.tasks import TASKS
from edge.tasks.linear import Linear
from edge.weights import weights_digest
from edge.wire import read_file
from fl import devices, events, files, runs
from fl.coordination import SteadyClock, advance, advance_run, eligible_devices, facts_of
from fl.models import Assignment, Device, Event, GlobalModel, PresenceLease, Round, Run, Update
from fl.rounds import lock_run, newest_model
from fl.strategies import STRATEGIES, Contribution, Strategy, check_config
from fl.strategies.mean import add, weighted_mean
from fl.tasks import spec_of_task
from tests.builders import NOW, PLAN, at, current_round, fleet, participant, started_run, step
from tests.fl.threads import Call, eventually

pytestmark = pytest.mark.django_db


def told(stream, event):
    rows = Event.objects.filter(stream=stream, event=event).order_by("seq")
    return [msgspec.json.decode(row.data) for row in rows]


def versions(run):
    """Return what has been published of a run: version → digest."""
    return dict(run.models.filter(published_at__isnull=False).values_list("version", "digest"))


def train_round(run, senders, now=NOW):
    """Select, train and close one round; all of the senders are in its cohort."""
    step(run, now)
    for sender in senders:
        sender.send(now=now)
    step(run, now)


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_started_run_gets_a_measured_first_model_and_its_first_round():
    run = started_run()

    model = newest_model(run)
    assert (model.version, model.parent, model.round) == (0, None, None)
    assert model.metrics["accuracy"] < 0.5
    assert model.digest == weights_digest(read_file(files.local_path(model.file), spec_of_task("linear")))
    assert run.best_model == model
    assert (current_round(run).number, current_round(run).state) == (1, "pending")
    assert [payload["round"] for payload in told(run.stream, "model_aggregation")] == [0]


def test_the_same_seed_gives_the_same_first_model_and_another_seed_another():
    digests = [newest_model(started_run(seed=seed)).digest for seed in (1, 1, 2)]

    assert digests[0] == digests[1] != digests[2]


def test_advancing_a_run_again_changes_nothing():
    run = started_run()

    assert not advance_run(run.pk, SteadyClock(at(1)))

    assert Round.objects.count() == GlobalModel.objects.count() == 1


def test_a_round_waits_for_its_cohort_and_says_how_many_are_there():
    run = started_run(cohort_size=3, quorum=2)
    fleet(2)

    assert not step(run, at(9))

    assert current_round(run).reason == "waiting for devices: 2 of 3 ready"
    assert told(run.stream, "fl_status_update")[-1]["reason"] == "waiting for devices: 2 of 3 ready"


def test_what_a_round_waits_for_is_told_once():
    run = started_run()
    step(run)
    before = Event.objects.count()

    step(run, at(1))

    assert Event.objects.count() == before


def test_a_quorum_is_enough_when_patience_ends():
    run = started_run(cohort_size=3, quorum=2)
    fleet(2)
    opened_at = current_round(run).opened_at

    assert not step(run, opened_at + timedelta(seconds=9.9))
    assert step(run, opened_at + timedelta(seconds=10))

    assert current_round(run).state == "training"
    assert Assignment.objects.count() == 2


def test_a_selected_device_gets_its_assignment_with_all_that_it_needs():
    device, _ = fleet(2)
    run = started_run()

    step(run, at(2))

    round_ = current_round(run)
    assert (round_.started_at, round_.deadline_at) == (at(2), at(62))
    (message,) = told(device.device.stream, "assignment")
    assert message["assignment_id"] == device.assignment().pk
    assert message["base_digest"] == newest_model(run).digest
    assert message["weights_url"] == f"/api/v1/weights/{newest_model(run).digest}/"
    assert message["training"]["seed"] != 0


def drop_lease(one):
    devices.disconnected(connection_id=one.connection_id, now=NOW)


def suspend(one):
    devices.suspend(device=one.device, reason="", now=NOW, by=None)


def speak_another_protocol(one):
    Device.objects.filter(pk=one.device.pk).update(protocol="qflare.v0")


UNFIT = {
    "closed": drop_lease,
    "suspended": suspend,
    "with another model": lambda one: one.connect(digest="d" * 64),
    "with too few examples": lambda one: one.connect(num_examples=9),
    "with another protocol": speak_another_protocol,
    "with other tasks only": lambda one: one.device.tasks.update(task="digits"),
    "without what the strategy needs": lambda one: one.device.tasks.update(supports=[]),
    "whose lease ran out": lambda one: PresenceLease.objects.filter(device=one.device).update(lease_until=NOW),
}


@pytest.mark.parametrize("spoil", UNFIT.values(), ids=UNFIT.keys())
def test_a_device_that_does_not_fit_is_not_selected(spoil):
    good, unfit = fleet(2)
    run = started_run(min_examples=10, strategy="fedprox", strategy_config={"mu": 0.1})
    spoil(unfit)

    assert eligible_devices(run, NOW) == [good.device]


def test_a_device_is_judged_by_its_offer_of_the_runs_task():
    one = participant().connect()
    one.device.tasks.create(task="digits", digest="d" * 64, num_examples=1, supports=[])
    run = started_run(min_examples=10, strategy="fedprox", strategy_config={"mu": 0.1})

    assert eligible_devices(run, NOW) == [one.device]


def test_who_enrolled_first_changes_nothing_in_a_cohort():
    for name in ("carl", "anna", "bert"):
        participant(name).connect()
    run = started_run(cohort_size=3)

    step(run)

    cohort = Assignment.objects.order_by("cohort_index").values_list("device__name", flat=True)
    assert list(cohort) == ["anna", "bert", "carl"]


def test_a_busy_device_is_not_selected_for_another_run():
    fleet(2)
    run, other = started_run(), started_run(name="another")

    assert step(run)
    assert not step(other)

    assert eligible_devices(other, NOW) == []
    assert Assignment.objects.count() == 2


def test_the_cohort_comes_from_the_seed_and_the_set_of_devices():
    fleet(8)
    chosen = []
    for _ in range(2):
        run = started_run(cohort_size=3, seed=5)
        step(run)
        round_ = current_round(run)
        chosen.append(list(round_.assignments.order_by("cohort_index").values_list("device_id", flat=True)))
        Assignment.objects.update(state="failed")

    assert chosen[0] == chosen[1] == sorted(chosen[0])
    assert len(chosen[0]) == 3


# ── closing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_all_updates_in_a_round_closes_at_once():
    senders = fleet(2)
    run = started_run()

    train_round(run, senders, at(3))

    first = run.round_set.get(number=1)
    assert (first.state, first.closed_at, first.claim_token, first.claimed_until) == ("completed", at(3), "", None)
    assert list(versions(run)) == [0, 1]
    model = newest_model(run)
    assert (model.parent.version, model.round) == (0, first)
    assert set(first.device_metrics["loss"]) == {"mean", "p10", "p90"}
    assert model.metrics["loss"] < newest_model(run).parent.metrics["loss"]
    assert current_round(run).number == 2
    assert current_round(run).base_model == model


def test_a_round_is_told_from_start_to_end():
    senders = fleet(2)
    run = started_run(rounds=1)

    train_round(run, senders)

    phases = [payload["phase"] for payload in told(run.stream, "model_aggregation")]
    assert phases == ["completed", "started", "completed"]
    (ended,) = told(run.stream, "training_progress")
    assert (ended["phase"], ended["round"], ended["updates_received"]) == ("round_completed", 1, 2)
    assert ended["metrics"] == newest_model(run).metrics
    states = [(payload["state"], payload["round_state"]) for payload in told(run.stream, "fl_status_update")]
    assert states[-1] == ("completed", "completed")
    assert ("running", "aggregating") in states
    assert ("running", "evaluating") in states


def test_at_the_deadline_a_quorum_closes_the_round_and_the_rest_expires():
    *senders, slow = fleet(3)
    run = started_run(cohort_size=3, quorum=2, rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    assert not step(run, at(59))

    assert step(run, at(60))

    assert run.round_set.get(number=1).state == "completed"
    assert (slow.assignment().state, slow.assignment().reason) == ("expired", "the round closed at its deadline")
    assert told(slow.device.stream, "cancel")[-1]["assignment_id"] == slow.assignment().pk
    started = told(run.stream, "model_aggregation")[1]
    assert (started["updates_received"], started["updates_planned"]) == (2, 3)


def test_at_the_deadline_without_a_quorum_the_round_fails_and_the_next_opens():
    sender, *_ = fleet(3)
    run = started_run(cohort_size=3, quorum=2)
    step(run)
    sender.send()

    assert step(run, at(60))

    failed = run.round_set.get(number=1)
    assert (failed.state, failed.reason) == ("failed", "deadline passed with 1 of 2 updates")
    assert list(versions(run)) == [0]
    assert current_round(run).number == 2
    assert set(failed.assignments.values_list("state", flat=True)) == {"accepted", "expired"}


def test_a_round_fails_at_once_when_its_quorum_is_out_of_reach():
    first, second = fleet(2)
    run = started_run()
    step(run)
    suspend(first)

    assert step(run, at(1))

    assert run.round_set.get(number=1).reason == "quorum can no longer be met: 1 of 2 updates possible"
    assert second.assignment().state == "expired"


def test_three_failed_rounds_in_a_row_fail_the_run():
    fleet(2)
    run = started_run(rounds=9)
    for number in range(3):
        step(run, at(100 * number))
        for participant_ in Device.objects.all():
            devices.heard_from(connection_ids=[participant_.lease.connection_id], now=at(100 * number + 60))
        step(run, at(100 * number + 60))

    run.refresh_from_db()
    assert (run.state, run.reason) == ("failed", "3 rounds in a row failed")
    assert list(run.round_set.values_list("number", "state")) == [(1, "failed"), (2, "failed"), (3, "failed")]


def test_a_completed_round_starts_the_count_of_failures_anew():
    senders = fleet(2)
    run = started_run(rounds=9)
    for number in range(1, 6):
        if number == 3:
            train_round(run, senders)
        else:
            step(run)
            step(run, at(60))

    run.refresh_from_db()
    assert run.state == "running"
    assert list(versions(run)) == [0, 1]


def test_a_failed_round_keeps_its_number_and_counts():
    senders = fleet(2)
    run = started_run(rounds=2)
    step(run)
    step(run, at(60))

    train_round(run, senders)

    run.refresh_from_db()
    assert run.state == "completed"
    assert newest_model(run).round.number == 2
    assert newest_model(run).version == 1


@pytest.mark.django_db(transaction=True)
def test_an_update_that_arrives_while_the_deadline_passes_saves_the_round():
    first, second = fleet(2)
    run = started_run()
    step(run)
    first.send()

    with events.transaction():
        second.send()
        # The other coordinator sees one of two updates and the deadline past, and is about to fail the round.
        other = Call(lambda: step(run, at(60)))
        other.held_up()

    assert other.result() is False
    assert current_round(run).state == "training"
    assert step(run, at(60))
    assert list(versions(run)) == [0, 1]


@pytest.mark.parametrize("updates", [1, 2], ids=["would fail", "would close"])
@pytest.mark.django_db(transaction=True)
def test_a_round_whose_deadline_is_extended_while_it_passes_goes_on(updates):
    senders = fleet(3)
    run = started_run(cohort_size=3, quorum=2)
    step(run)
    for sender in senders[:updates]:
        sender.send()

    with events.transaction():
        runs.extend_round(run=run, seconds=30, now=at(59))
        # The other coordinator sees the deadline of before, which has passed.
        other = Call(lambda: step(run, at(60)))
        other.held_up()

    assert other.result() is False
    assert (current_round(run).state, current_round(run).deadline_at) == ("training", at(90))
    assert senders[2].send(now=at(80)).state == "accepted"


@pytest.mark.django_db(transaction=True)
def test_a_round_closes_when_its_run_is_free_however_long_that_was_waited_for():
    run = finished_training(started_run(), fleet(2))
    round_id, moment = current_round(run).pk, [at(30)]

    with events.transaction():
        lock_run(run.pk)
        other = Call(lambda: advance(round_id, lambda: moment[0]))
        other.held_up()
        moment[0] = at(40)

    assert other.result()
    assert Round.objects.get(pk=round_id).closed_at == at(40)


@pytest.mark.django_db(transaction=True)
def test_two_coordinators_select_one_cohort():
    fleet(2)
    run = started_run()
    round_id = current_round(run).pk

    with events.transaction():
        advance(round_id, SteadyClock(NOW))
        other = Call(lambda: advance(round_id, SteadyClock(NOW)))
        other.held_up()

    assert other.result() is False
    assert Assignment.objects.count() == 2


def test_an_assignment_begins_after_its_devices_last_one_has_ended():
    (sender,) = fleet(1)
    earlier, run = started_run(cohort_size=1), started_run(name="another", cohort_size=1)
    step(earlier)
    moments = iter([NOW, at(2), at(2)])

    def clock():
        # What frees the device comes in when the coordinator has looked at its clock, and not yet at the devices.
        moment = next(moments)
        if moment == NOW:
            sender.send(now=at(1))
        return moment

    assert advance(current_round(run).pk, clock)

    ended, begun = Assignment.objects.order_by("pk")
    assert (ended.ended_at, begun.assigned_at) == (at(1), at(2))
    assert current_round(run).deadline_at == at(2) + timedelta(seconds=run.deadline_seconds)


@pytest.mark.django_db(transaction=True)
def test_two_runs_that_reach_for_the_same_devices_share_them_out():
    fleet(2)
    run, another = started_run(), started_run(name="another")
    round_ids = [current_round(run).pk, current_round(another).pk]

    with events.transaction():
        advance(round_ids[0], SteadyClock(NOW))
        other = Call(lambda: advance(round_ids[1], SteadyClock(NOW)))
        other.held_up()

    assert other.result() is False
    assert set(Assignment.objects.values_list("round", flat=True)) == {round_ids[0]}
    assert Round.objects.get(pk=round_ids[1]).state == "pending"


# ── from one round to the next ────────────────────────────────────────────────────────────────────────────────────────


def finished_training(run, senders):
    """Let the open round of a run have all its updates, and be about to close."""
    step(run)
    for sender in senders:
        sender.send()
    return run


def test_a_round_that_ends_hands_its_devices_the_next_one_at_once():
    senders = fleet(2)
    run = finished_training(started_run(), senders)

    step(run, at(3))

    round_ = current_round(run)
    assert (round_.number, round_.state) == (2, "training")
    assert round_.opened_at == round_.started_at == run.round_set.get(number=1).ended_at
    assert [sender.assignment().round_id for sender in senders] == [round_.pk] * 2
    assert told(senders[0].device.stream, "assignment")[-1]["base_digest"] == newest_model(run).digest
    states = [(payload["round"], payload["round_state"]) for payload in told(run.stream, "fl_status_update")]
    assert states[-3:] == [(1, "aggregating"), (1, "evaluating"), (2, "training")]


def test_a_round_that_opens_without_its_devices_waits_for_them():
    senders = fleet(2)
    run = finished_training(started_run(), senders)
    drop_lease(senders[0])

    step(run)

    assert (current_round(run).number, current_round(run).state) == (2, "pending")
    assert told(run.stream, "fl_status_update")[-1]["round_state"] == "pending"


def test_a_run_that_has_waited_longer_comes_before_the_next_round_of_another():
    senders = fleet(2)
    run = finished_training(started_run(), senders)
    other = started_run(name="another")

    step(run)

    assert current_round(run).state == "pending"
    assert step(other)
    assert {sender.assignment().round.run for sender in senders} == {other}


def test_a_run_that_waits_but_was_served_later_does_not_come_first():
    senders = fleet(2)
    run = finished_training(started_run(), senders)
    other = started_run(name="another")
    Run.objects.filter(pk=other.pk).update(last_served_at=at(1))

    step(run, at(2))

    assert (current_round(run).state, current_round(other).state) == ("training", "pending")


@pytest.mark.django_db(transaction=True)
def test_devices_that_another_run_takes_meanwhile_do_not_undo_what_was_published():
    senders = fleet(2)
    run, another = (finished_training(started_run(name=name), senders) for name in ("first", "second"))
    round_ids = [current_round(run).pk, current_round(another).pk]

    with events.transaction():
        advance(round_ids[0], SteadyClock(NOW))
        other = Call(lambda: advance(round_ids[1], SteadyClock(NOW)))
        other.held_up()

    assert other.result() is True
    assert list(versions(run)) == list(versions(another)) == [0, 1]
    assert (current_round(run).state, current_round(another).state) == ("training", "pending")


# ── claims ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Gate:
    """Lets the first to come wait, and all others pass."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()
        self._first = threading.Lock()
        self.armed = True

    def pass_through(self):
        if self.armed and self._first.acquire(blocking=False):
            self.entered.set()
            assert self.opened.wait(60)
            return True
        return False


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


@pytest.fixture
def strategy():
    """Register a strategy by its rule, for the test only."""
    registered = []

    def register(rule):
        name = f"test-{len(registered)}"
        STRATEGIES[name] = Strategy(name=name, description="of a test", parameters={}, rule=rule)
        registered.append(name)
        return name

    yield register
    for name in registered:
        del STRATEGIES[name]


@pytest.fixture
def task():
    """Register a task that is like `linear` but for what is given, for the test only."""
    registered = []

    def register(name, **members):
        TASKS[name] = type(name, (Linear,), {"name": name, **members})
        registered.append(name)
        return name

    yield register
    for name in registered:
        del TASKS[name]


def plain(weights, state, contributions, config):
    return add(weights, weighted_mean(weights, contributions)), {}


@pytest.mark.django_db(transaction=True)
def test_a_coordinator_whose_claim_ran_out_while_aggregating_publishes_nothing(strategy):
    gate = Gate()

    def slow(weights, state, contributions, config):
        if gate.pass_through():
            return {name: tensor + 1 for name, tensor in weights.items()}, {}
        return plain(weights, state, contributions, config)

    senders = fleet(2)
    run = started_run(strategy=strategy(slow), rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk

    first = Call(lambda: advance(round_id, SteadyClock(NOW)))
    assert gate.entered.wait(60)
    assert not advance(round_id, SteadyClock(at(1))), "the claim is good"
    assert advance(round_id, SteadyClock(at(11))), "the claim ran out"
    published = versions(run)
    gate.opened.set()

    assert first.result() is False
    assert versions(run) == published
    assert list(published) == [0, 1]
    assert GlobalModel.objects.filter(run=run).count() == 2
    assert [payload["version"] for payload in told(run.stream, "model_aggregation") if payload["version"] == 1] == [1]


@pytest.mark.django_db(transaction=True)
def test_a_coordinator_whose_claim_ran_out_cannot_fail_the_round_either(strategy):
    gate = Gate()

    def slow(weights, state, contributions, config):
        if gate.pass_through():
            raise RuntimeError("too late to matter")
        return plain(weights, state, contributions, config)

    senders = fleet(2)
    run = started_run(strategy=strategy(slow), rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk

    first = Call(lambda: advance(round_id, SteadyClock(NOW)))
    assert gate.entered.wait(60)
    assert advance(round_id, SteadyClock(at(11)))
    gate.opened.set()

    assert first.result() is False
    assert run.round_set.get().state == "completed"
    assert "too late" not in str(list(Event.objects.values_list("data", flat=True)))


@pytest.mark.django_db(transaction=True)
def test_a_coordinator_whose_claim_ran_out_while_evaluating_publishes_nothing(task):
    gate = Gate()
    gate.armed = False

    def evaluate(self, model, examples):
        slow = gate.pass_through()
        measured = Linear.evaluate(self, model, examples)
        return {"loss": -1.0} if slow else measured

    name = task("slow-to-measure", evaluate=evaluate)
    senders = fleet(2, task=name)
    run = started_run(task=name, rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk
    gate.armed = True

    first = Call(lambda: advance(round_id, SteadyClock(NOW)))
    assert gate.entered.wait(60)
    assert Round.objects.get(pk=round_id).state == "evaluating"
    assert not advance(round_id, SteadyClock(at(1)))
    assert advance(round_id, SteadyClock(at(11)))
    gate.opened.set()

    assert first.result() is False
    assert newest_model(run).metrics["loss"] > 0
    assert list(versions(run)) == [0, 1]


@pytest.mark.django_db(transaction=True)
def test_a_claim_is_renewed_while_its_coordinator_works(strategy, settings):
    settings.QFLARE_CLAIM_SECONDS = 0.5
    gate = Gate()

    def slow(weights, state, contributions, config):
        gate.pass_through()
        return plain(weights, state, contributions, config)

    senders = fleet(2)
    run = started_run(strategy=strategy(slow), rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk
    claim = Round.objects.filter(pk=round_id)

    first = Call(lambda: advance(round_id, SteadyClock(NOW)))
    assert gate.entered.wait(60)
    token, until = claim.values_list("claim_token", "claimed_until").get()
    renewed = eventually(lambda: claim.exclude(claimed_until=until).values_list("claim_token", flat=True))
    gate.opened.set()

    assert list(renewed) == [token]
    assert first.result() is True
    assert list(versions(run)) == [0, 1]


def undisturbed(senders, **changes):
    """Return the digest that a run of one round comes to when nothing happens."""
    run = started_run(rounds=1, **changes)
    train_round(run, senders)
    return newest_model(run).digest


def test_a_coordinator_that_is_to_end_gives_its_round_back_between_two_updates():
    senders = fleet(2)
    expected = undisturbed(senders)
    run = started_run(rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk
    asked = []

    assert not advance(round_id, SteadyClock(NOW), is_stopping=lambda: asked.append(1) or len(asked) == 2)

    assert Round.objects.get(pk=round_id).state == "aggregating"
    assert list(versions(run)) == [0]
    assert advance(round_id, SteadyClock(NOW)), "nobody has to wait for a claim to run out"
    assert newest_model(run).digest == expected


@pytest.mark.django_db(transaction=True)
def test_a_round_whose_coordinator_died_while_aggregating_comes_to_the_same_digest(strategy):
    deaths = [Killed, Killed]

    def dying(weights, state, contributions, config):
        if deaths:
            raise deaths.pop()
        return plain(weights, state, contributions, config)

    senders = fleet(2)
    expected = undisturbed(senders)
    run = started_run(strategy=strategy(dying), rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk

    for moment in (0, 11):
        with pytest.raises(Killed):
            advance(round_id, SteadyClock(at(moment)))
        assert Round.objects.get(pk=round_id).state == "aggregating"
    assert not advance(round_id, SteadyClock(at(20))), "the claim of the dead is still good"
    assert advance(round_id, SteadyClock(at(22)))

    assert newest_model(run).digest == expected
    assert list(versions(run)) == [0, 1]
    phases = [payload["phase"] for payload in told(run.stream, "model_aggregation")]
    assert phases == ["completed", "started", "completed"]


@pytest.mark.django_db(transaction=True)
def test_a_round_whose_coordinator_died_while_evaluating_comes_to_the_same_digest(task):
    deaths = []

    def evaluate(self, model, examples):
        if deaths:
            raise deaths.pop()
        return Linear.evaluate(self, model, examples)

    name = task("deadly-to-measure", evaluate=evaluate)
    senders = fleet(2, task=name)
    expected = undisturbed(senders, task=name)
    run = started_run(task=name, rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    round_id = current_round(run).pk
    deaths.append(Killed)

    with pytest.raises(Killed):
        advance(round_id, SteadyClock(NOW))
    assert Round.objects.get(pk=round_id).state == "evaluating"
    assert list(versions(run)) == [0], "a candidate is not published"
    assert not advance(round_id, SteadyClock(at(9)))
    assert advance(round_id, SteadyClock(at(11)))

    assert versions(run)[1] == expected


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_strategy_that_raises_fails_the_round_with_its_reason_and_the_last_model_stays(strategy):
    def broken(weights, state, contributions, config):
        raise ValueError("the server's arithmetic is out of order")

    senders = fleet(2)
    run = started_run(strategy=strategy(broken))

    train_round(run, senders)

    failed = run.round_set.get(number=1)
    assert (failed.state, failed.reason) == ("failed", "aggregation failed: the server's arithmetic is out of order")
    assert list(versions(run)) == [0]
    assert GlobalModel.objects.count() == 1
    assert told(run.stream, "model_aggregation")[-1]["phase"] == "failed"
    assert "out of order" in told(run.stream, "error_notification")[-1]["detail"]
    assert current_round(run).number == 2


def test_a_database_that_went_away_while_aggregating_fails_no_round_and_it_is_done_again(strategy):
    outages = [OperationalError("the connection is closed")]

    def interrupted(weights, state, contributions, config):
        if outages:
            raise outages.pop()
        return plain(weights, state, contributions, config)

    senders = fleet(2)
    run = started_run(strategy=strategy(interrupted), rounds=1)
    with pytest.raises(OperationalError):
        train_round(run, senders)

    assert current_round(run).state == "aggregating"
    assert advance(current_round(run).pk, SteadyClock(at(11))), "the claim ran out"
    assert list(versions(run)) == [0, 1]
    phases = [payload["phase"] for payload in told(run.stream, "model_aggregation")]
    assert phases == ["completed", "started", "completed"]


def test_a_task_that_cannot_be_measured_fails_the_round_and_its_candidate_goes(task):
    broken = []

    def evaluate(self, model, examples):
        if broken:
            raise ValueError("no ruler")
        return Linear.evaluate(self, model, examples)

    name = task("hard-to-measure", evaluate=evaluate)
    senders = fleet(2, task=name)
    run = started_run(task=name)
    step(run)
    for sender in senders:
        sender.send()
    broken.append(True)

    step(run)

    assert run.round_set.get(number=1).reason == "evaluation failed: no ruler"
    assert GlobalModel.objects.count() == 1


def test_a_run_whose_first_model_cannot_be_made_fails_with_the_reason(task):
    def evaluate(self, model, examples):
        raise ValueError("no ruler")

    run = started_run(task=task("never-measured", evaluate=evaluate))

    assert (run.state, run.reason) == ("failed", "the initial model could not be made: no ruler")
    assert not Round.objects.exists()


def test_a_run_that_was_stopped_while_its_first_model_failed_stays_stopped(task):
    def evaluate(self, model, examples):
        runs.stop_run(run=Run.objects.get(), now=at(1))
        raise ValueError("no ruler")

    run = started_run(task=task("stopped-while-measured", evaluate=evaluate))

    assert run.state == "stopped"


def test_a_coordinator_that_cannot_make_the_first_model_leaves_a_run_alone_that_another_one_began(task):
    others = [True]

    def evaluate(self, model, examples):
        if others and others.pop():
            advance_run(Run.objects.get().pk, SteadyClock(at(1)))
            raise ValueError("no ruler here")
        return Linear.evaluate(self, model, examples)

    run = started_run(task=task("measured-elsewhere", evaluate=evaluate))

    assert (run.state, run.reason) == ("running", "")
    assert (current_round(run).number, newest_model(run).version) == (1, 0)


def test_patience_for_a_cohort_begins_when_the_first_model_is_published():
    run = runs.create_run(plan=replace(PLAN, cohort_wait_seconds=30), created_by=None, now=NOW)
    runs.start_run(run=run, now=NOW)
    moments = iter([NOW, at(40)])  # as it is begun, and when it has been made and measured

    advance_run(run.pk, lambda: next(moments))

    assert current_round(run).opened_at == newest_model(run).published_at == at(40)
    fleet(1, now=at(40))
    assert not step(run, at(69)), "a cohort of 2 is still waited for"


def test_the_first_version_is_told_as_the_best_one_so_far():
    run = started_run()

    (first,) = told(run.stream, "model_aggregation")

    assert (first["version"], first["is_best"]) == (0, True)


def huge(sender, value):
    return sender.send({"weight": torch.full((1, 4), value), "bias": torch.zeros(1)}, metrics={})


def test_a_result_that_is_not_finite_is_never_published():
    senders = fleet(2)
    run = started_run(rounds=5)
    for _ in range(2):
        step(run)
        for sender in senders:
            huge(sender, 3e38)
        step(run)

    assert run.round_set.get(number=1).state == "completed"
    failed = run.round_set.get(number=2)
    assert failed.state == "failed"
    assert "NaN or an infinity" in failed.reason
    assert list(versions(run)) == [0, 1]


def test_a_model_whose_loss_is_beyond_all_numbers_is_published_and_the_run_goes_on():
    senders = fleet(2)
    run = started_run(rounds=2)
    step(run)
    for sender in senders:
        huge(sender, 1e30)

    step(run)

    assert newest_model(run).metrics == {"loss": None, "accuracy": 0.0}
    assert told(run.stream, "model_aggregation")[-1]["metrics"] == {"loss": None, "accuracy": 0.0}
    assert current_round(run).number == 2


def test_a_first_model_whose_loss_is_beyond_all_numbers_begins_the_run(task):
    name = task("immeasurable", evaluate=lambda self, model, examples: {"loss": float("nan")})

    run = started_run(task=name)

    assert newest_model(run).metrics == {"loss": None}
    assert current_round(run).number == 1


def test_metrics_at_the_edge_of_what_is_allowed_do_not_hold_a_round_up():
    senders = fleet(2)
    run = started_run(rounds=1)
    step(run)
    for sender, value in zip(senders, (1e100, -1e100), strict=True):
        sender.send({"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}, metrics={"loss": value}, num_examples=2**40)

    step(run)

    run.refresh_from_db()
    assert run.state == "completed"
    assert run.round_set.get().device_metrics["loss"]["mean"] == 0


# ── which model is best ───────────────────────────────────────────────────────────────────────────────────────────────


def send_measured(senders, run, accuracy):
    step(run)
    for sender in senders:
        sender.send({"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}, metrics={"accuracy": accuracy})
    step(run)


def test_where_the_server_has_no_data_evaluation_is_absent_and_the_devices_say_which_is_best(task):
    name = task("unseen", test_examples=lambda self: None)
    senders = fleet(2, task=name)
    run = started_run(task=name, rounds=3)

    for accuracy in (0.5, 0.9, 0.7):
        send_measured(senders, run, accuracy)

    run.refresh_from_db()
    assert run.state == "completed"
    assert list(run.models.values_list("metrics", flat=True)) == [None] * 4
    assert run.best_model.version == 2
    last = told(run.stream, "model_aggregation")[-1]
    assert (last["metrics"], last["is_best"]) == (None, False)
    assert last["device_metrics"]["accuracy"]["mean"] == 0.7


def test_where_the_server_measures_the_devices_word_does_not_count():
    senders = fleet(2)
    run = started_run(rounds=2)
    train_round(run, senders)
    better = newest_model(run).metrics["accuracy"]
    step(run)
    for sender in senders:
        huge_lie = {"weight": torch.full((1, 4), 9.0), "bias": torch.zeros(1)}
        sender.send(huge_lie, metrics={"accuracy": 1.0})
    step(run)

    run.refresh_from_db()
    assert newest_model(run).metrics["accuracy"] < better
    assert run.best_model.version == 1


# ── order and restarts do not matter ──────────────────────────────────────────────────────────────────────────────────


def test_the_order_in_which_updates_arrive_does_not_change_the_model():
    senders = fleet(3)
    digests = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        run = started_run(cohort_size=3, rounds=2, strategy="fedadam")
        for _ in range(2):
            train_round(run, [senders[index] for index in order])
        digests.append(newest_model(run).digest)

    assert len(set(digests)) == 1


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_three_rounds_whose_state_is_read_back_from_files_equal_three_in_memory(name):
    senders = fleet(2)
    run = started_run(strategy=name, rounds=3)
    strategy, spec = STRATEGIES[name], spec_of_task("linear")
    config = check_config(strategy, {})
    weights = read_file(files.local_path(newest_model(run).file), spec)
    state = strategy.initial_state(weights, config)
    digests = []

    for _ in range(3):
        step(run)
        round_ = current_round(run)
        for sender in senders:
            sender.send()
        contributions = [
            Contribution(update.num_examples, partial(read_file, files.local_path(update.file), spec))
            for update in Update.objects.filter(assignment__round=round_).order_by("assignment__cohort_index")
        ]
        weights, state = strategy.apply(weights, state, contributions, config)
        digests.append(weights_digest(weights))
        step(run)

    run.refresh_from_db()
    assert run.state == "completed"
    assert [digest for version, digest in sorted(versions(run).items()) if version] == digests
    assert len(set(digests)) == 3
    newest = newest_model(run)
    if state:
        stored = read_file(files.local_path(newest.strategy_state_file), strategy.state_spec(spec, config))
        assert weights_digest(stored) == weights_digest(state)
    else:
        assert newest.strategy_state_file == ""


def test_steps_before_the_strategy_are_applied():
    senders = fleet(2)
    plain_run = started_run(rounds=1)
    train_round(plain_run, senders)
    clipped = started_run(rounds=1, steps=[{"name": "clip_norm", "config": {"max_norm": 0.01}}])
    train_round(clipped, senders)

    def moved(run):
        spec = spec_of_task("linear")
        before, after = (read_file(files.local_path(model.file), spec) for model in run.models.order_by("version"))
        return sum(((after[name] - before[name]) ** 2).sum().item() for name in before) ** 0.5

    assert moved(plain_run) > 0.1
    assert moved(clipped) == pytest.approx(0.01, rel=1e-3)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def kept_updates():
    return sorted(path.name for path in files.local_path("updates").rglob("*") if path.is_file())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ending", ["completed", "failed", "stopped"])
@pytest.mark.parametrize("keep", [False, True])
def test_the_files_of_updates_go_after_their_round_unless_the_run_keeps_them(keep, ending):
    senders = fleet(3)
    run = started_run(cohort_size=3, quorum=3 if ending == "failed" else 2, keep_updates=keep)
    step(run)
    for sender in senders[:2]:
        sender.send()
    assert len(kept_updates()) == 2

    if ending == "stopped":
        runs.stop_run(run=run, now=at(1))
    else:
        step(run, at(60))

    assert run.round_set.get(number=1).state == ending
    if keep:
        assert len(kept_updates()) == 2
        assert Update.objects.exclude(file="").count() == 2
    else:
        eventually(lambda: not kept_updates())
        assert not Update.objects.exclude(file="").exists()
    assert Update.objects.count() == 2


def test_the_facts_of_a_round_are_what_its_rows_say():
    senders = fleet(3)
    run = started_run(cohort_size=3, quorum=2)
    pending = facts_of(current_round(run), NOW)
    step(run)
    senders[0].send()
    suspend(senders[1])

    training = facts_of(Round.objects.select_related("run").get(run=run), NOW)

    assert (pending.eligible, pending.open_assignments, pending.accepted) == (3, 0, 0)
    assert (training.eligible, training.open_assignments, training.accepted) == (0, 1, 1)
    assert training == replace(training, cohort_size=3, quorum=2, deadline_at=at(60), cohort_wait_seconds=10)
