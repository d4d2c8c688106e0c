"""The training loop: what it computes, how it ends, and that it does so again."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn

from edge.partition import Partition
from edge.tasks import (
    DataSource,
    Examples,
    OwnLoopTask,
    Progress,
    Task,
    build_model,
    find_task,
    initial_weights,
)
from edge.training import (
    NoExamples,
    TrainingCancelled,
    TrainingDiverged,
    TrainingSettings,
    UnsupportedTraining,
    evaluate,
    set_torch_threads,
    train,
)
from edge.weights import spec_of, weights_digest

ONE_STEP_AT_A_TIME = TrainingSettings(local_epochs=2, batch_size=1, learning_rate=0.1)


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Small models gain nothing from more, and two processes that each take every core wait for each other."""
    before = torch.get_num_threads()
    set_torch_threads(1)
    yield
    set_torch_threads(before)


class Slope(Task):
    """Fit y = w·x by squared errors: small enough to follow with a pencil."""

    name = "slope"

    def build_model(self):
        return nn.Linear(1, 1, bias=False)

    def training_examples(self, source):
        return points((2.0, 0.0))

    def loss(self, model, batch):
        return (model(batch.inputs) - batch.targets).square().mean()

    def evaluate(self, model, examples):
        return {"loss": self.loss(model, next(examples.chunks(len(examples)))).item()}


class Hopeful(Slope):
    """Measures without looking."""

    name = "hopeful"

    def evaluate(self, model, examples):
        return {"loss": 0.0}


class Crowded(Slope):
    """A model with all that a state dict may hold: buffers of whole numbers and truth values, a weight that rests."""

    name = "crowded"

    def build_model(self):
        model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        model.register_buffer("seen", torch.tensor([False, True]))
        model.register_buffer("steps", torch.tensor(7, dtype=torch.int32))
        model.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))
        model.register_parameter("unused", nn.Parameter(torch.ones(2)))
        return model

    def loss(self, model, batch):
        if model.training:
            model.seen[0] = True
            model.steps += 1
        return super().loss(model, batch)


class OwnLoop(OwnLoopTask, Slope):
    """Sets the slope to what fits best at once, in one reported batch."""

    name = "own-loop"

    def train(self, model, examples, settings, report):
        x, y = examples.inputs, examples.targets
        with torch.no_grad():
            model.weight.copy_((x * y).sum() / x.square().sum())
        report(Progress(batch=1, batches=1, local_epoch=1, local_epochs=1, loss=0.5))


def points(*pairs):
    return Examples(torch.tensor([[x] for x, _ in pairs]), torch.tensor([[y] for _, y in pairs]))


def weights_of(slope):
    return {"weight": torch.tensor([[slope]])}


def ignore(progress):
    """Hear of progress and do nothing."""


def never():
    return False


def slope_after(settings, start=1.0, examples=None):
    """Return the slope after training from `start` on the one point (2, 0), where the gradient is 8w."""
    result = train(Slope(), examples or points((2.0, 0.0)), weights_of(start), settings, ignore, never)
    return start + result.delta["weight"].item()


def digits_of(index, count=5, name="digits"):
    return find_task(name).training_examples(DataSource(partition=Partition("dirichlet", index, count, seed=1)))


def add(weights, *deltas_and_shares):
    """Return weights plus the sum of deltas times their shares."""
    total = {name: tensor.clone() for name, tensor in weights.items()}
    for delta, share in deltas_and_shares:
        for name, tensor in delta.items():
            total[name] += tensor * share
    return total


def federated_accuracy(kind, seed, rounds=20, devices=5):
    """Average five devices' deltas by their examples for 20 rounds of the demo's settings."""
    task = find_task("digits")
    source = [DataSource(partition=Partition(kind, index, devices, seed=seed)) for index in range(devices)]
    examples = [task.training_examples(device) for device in source]
    weights = initial_weights(task, seed)
    for number in range(rounds):
        settings = replace(task.defaults, seed=seed * 1_000 + number)
        results = [train(task, own, weights, settings, ignore, never) for own in examples]
        total = sum(result.num_examples for result in results)
        weights = add(weights, *((result.delta, result.num_examples / total) for result in results))
    return evaluate(task, weights, task.test_examples())["accuracy"]


# What it computes


def test_plain_steps_follow_the_gradient():
    """1 - 0.1·8 = 0.2; then 0.2 - 0.1·1.6 = 0.04."""
    assert slope_after(ONE_STEP_AT_A_TIME) == pytest.approx(0.04)


def test_fedprox_pulls_back_towards_the_global_weights():
    """1 - 0.1·(8 + 0.5·0) = 0.2; then 0.2 - 0.1·(1.6 + 0.5·(0.2 - 1)) = 0.08."""
    assert slope_after(replace(ONE_STEP_AT_A_TIME, proximal_mu=0.5)) == pytest.approx(0.08)


def test_momentum_keeps_half_of_the_last_step():
    """v = 8, w = 0.2; then v = 0.5·8 + 1.6 = 5.6, w = 0.2 - 0.56."""
    assert slope_after(replace(ONE_STEP_AT_A_TIME, momentum=0.5)) == pytest.approx(-0.36)


def test_fedprox_and_momentum_go_together():
    """v = 8, w = 0.2; then v = 0.5·8 + 1.6 - 0.4 = 5.2, w = 0.2 - 0.52."""
    settings = replace(ONE_STEP_AT_A_TIME, momentum=0.5, proximal_mu=0.5)

    assert slope_after(settings) == pytest.approx(-0.32)


def test_the_velocity_does_not_outlive_a_round():
    settings = replace(ONE_STEP_AT_A_TIME, local_epochs=1, momentum=0.5)

    assert slope_after(settings, start=slope_after(settings)) == pytest.approx(0.04)


@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.5), (0.9, 0.5)])
def test_the_steps_are_those_of_torch(momentum, mu):
    """An independent reference: torch's own SGD, with FedProx's term as part of the loss."""
    task, examples = find_task("digits"), digits_of(0)
    weights = initial_weights(task, 3)
    settings = TrainingSettings(2, 16, 0.05, momentum, mu, seed=9)
    reference = build_model(task)
    reference.load_state_dict(weights)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=momentum)
    generator = torch.Generator().manual_seed(9)
    for _ in range(2):
        for batch in task.batches(examples, 16, generator):
            optimizer.zero_grad()
            distance = sum((p - weights[name]).square().sum() for name, p in reference.named_parameters())
            (task.loss(reference, batch) + mu / 2 * distance).backward()
            optimizer.step()

    result = train(task, examples, weights, settings, ignore, never)

    for name, tensor in reference.state_dict().items():
        assert torch.allclose(weights[name] + result.delta[name], tensor, atol=1e-5)


def test_an_epoch_sees_every_example_once_in_an_order_of_its_own():
    task = find_task("linear")
    examples = Examples(torch.arange(10.0).reshape(10, 1), torch.arange(10))
    generator = torch.Generator().manual_seed(1)

    first, second = ([batch.targets.tolist() for batch in task.batches(examples, 4, generator)] for _ in range(2))

    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == [*range(10)]
    assert first != second


def test_the_delta_is_local_minus_global_and_names_every_tensor():
    task = Crowded()
    weights = initial_weights(task, 0)
    before = weights_digest(weights)

    result = train(
        task, points(*[(float(x), 1.0) for x in range(8)]), weights, TrainingSettings(3, 4, 0.1), ignore, never
    )

    assert spec_of(result.delta) == spec_of(weights)
    assert weights_digest(weights) == before
    assert result.delta["0.weight"].abs().sum() > 0
    assert result.delta["1.num_batches_tracked"] == 6
    assert result.delta["steps"] == 6
    assert result.delta["seen"].tolist() == [True, False]
    assert result.delta["frozen"].tolist() == result.delta["unused"].tolist() == [0, 0]


def test_metrics_are_of_the_local_model_on_the_device_s_own_examples():
    task, examples = find_task("digits"), digits_of(2)
    weights = initial_weights(task, 0)

    result = train(task, examples, weights, task.defaults, ignore, never)

    local = add(weights, (result.delta, 1.0))
    assert result.num_examples == len(examples)
    assert result.metrics == pytest.approx(evaluate(task, local, examples), abs=1e-5)
    assert result.metrics["accuracy"] > evaluate(task, weights, examples)["accuracy"]


def test_measuring_uses_the_model_as_it_is_used_without_dropout():
    task = Crowded()
    weights = initial_weights(task, 0)

    measured = [evaluate(task, weights, points((1.0, 2.0), (3.0, 4.0))) for _ in range(3)]

    assert measured[0] == measured[1] == measured[2]


def test_measuring_ends_before_a_batch_when_it_is_to_stop_and_then_measures_as_ever():
    task = find_task("digits")
    weights, examples = initial_weights(task, 0), task.test_examples()
    asked = []

    with pytest.raises(TrainingCancelled):
        evaluate(task, weights, examples, lambda: asked.append(1) or len(asked) == 1)

    assert len(asked) == 1
    assert evaluate(task, weights, examples, never) == evaluate(task, weights, examples)
    assert len(asked) == 1


def test_measuring_many_examples_is_measuring_them_all():
    """More than one chunk of 1,000, the last one smaller, is the mean over all examples."""
    task = find_task("digits")
    weights = initial_weights(task, 4)
    examples = task.training_examples(DataSource())
    model = build_model(task)
    model.load_state_dict(weights)
    logits = model(examples.inputs)

    measured = evaluate(task, weights, examples)

    assert measured["loss"] == pytest.approx(nn.functional.cross_entropy(logits, examples.targets).item(), rel=1e-5)
    assert measured["accuracy"] == (logits.argmax(1) == examples.targets).double().mean().item()


# That it does so again


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "linear"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(name, threads):
    task, examples = find_task(name), digits_of(1, name=name)
    weights = initial_weights(task, 0)
    settings = TrainingSettings(2, 16, 0.05, 0.9, 0.1, seed=2**64 - 1)
    set_torch_threads(threads)

    first, again, other = (
        weights_digest(train(task, examples, weights, replace(settings, seed=seed), ignore, never).delta)
        for seed in (settings.seed, settings.seed, 1)
    )

    assert first == again
    assert first != other


def test_a_model_that_draws_numbers_gives_the_same_bits_too():
    weights = initial_weights(Crowded(), 0)
    examples = points(*[(float(x), 1.0) for x in range(8)])
    settings = TrainingSettings(3, 4, 0.1, seed=5)

    digests = {weights_digest(train(Crowded(), examples, weights, settings, ignore, never).delta) for _ in range(3)}

    assert len(digests) == 1


class Counted(Crowded):
    """Knows how often its model was built; keeps a sum beside the state dict when told to."""

    def __init__(self, has_secret=False):
        self.built = 0
        self.has_secret = has_secret

    def build_model(self):
        self.built += 1
        model = super().build_model()
        if self.has_secret:
            model.register_buffer("secret", torch.zeros(1), persistent=False)
        return model


class CountedOwnLoop(OwnLoop):
    def __init__(self):
        self.built = 0

    def build_model(self):
        self.built += 1
        return super().build_model()


def test_a_model_is_used_again_by_its_thread_and_remembers_nothing():
    task, examples = Counted(), points(*[(float(x), 1.0) for x in range(8)])
    weights = initial_weights(task, 0)
    settings = TrainingSettings(3, 4, 0.1, seed=5)
    task.built = 0

    first = train(task, examples, weights, settings, ignore, never)
    train(task, examples, initial_weights(Counted(), 9), settings, ignore, never)
    measured = evaluate(task, weights, examples)
    again = train(task, examples, weights, settings, ignore, never)
    fresh = train(Counted(), examples, weights, settings, ignore, never)

    assert task.built == 1
    assert weights_digest(first.delta) == weights_digest(again.delta) == weights_digest(fresh.delta)
    assert first.metrics == again.metrics == fresh.metrics
    assert measured == evaluate(Counted(), weights, examples)


@pytest.mark.parametrize("task", [CountedOwnLoop(), Counted(has_secret=True)], ids=["own loop", "hidden tensor"])
def test_a_model_that_may_remember_more_than_its_weights_is_built_each_time(task):
    weights = initial_weights(task, 0)
    task.built = 0

    for _ in range(2):
        train(task, points((1.0, 2.0), (2.0, 4.0)), weights, TrainingSettings(1, 2, 0.1), ignore, never)

    assert task.built == 2


@pytest.mark.parametrize(("learning_rate", "stops"), [(0.1, [False, True]), (1e30, [False] * 99)])
def test_a_training_that_was_cancelled_or_diverged_does_not_leave_its_model_to_the_next(learning_rate, stops):
    task, examples = Counted(), points((1.0, 2.0), (2.0, 4.0))
    weights = initial_weights(task, 0)
    task.built = 0

    with pytest.raises((TrainingCancelled, TrainingDiverged)):
        settings = TrainingSettings(9, 2, learning_rate)
        train(task, examples, weights, settings, ignore, iter(stops).__next__)
    evaluate(task, weights, examples)

    assert task.built == 2


def test_devices_that_train_at_once_in_one_process_get_the_bits_they_get_alone():
    task = find_task("digits")
    weights = initial_weights(task, 0)
    settings = TrainingSettings(1, 16, 0.05, 0.9)

    def digest(index):
        return weights_digest(train(task, digits_of(index), weights, settings, ignore, never).delta)

    alone = [digest(index) for index in range(5)]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(digest, range(5)))

    assert together == alone


def test_weights_are_drawn_from_their_seed_while_others_draw_and_train():
    task = find_task("digits")
    examples = digits_of(0)
    alone = [weights_digest(initial_weights(task, seed)) for seed in range(20)]

    def draw_and_train(seed):
        drawn = initial_weights(task, seed)
        train(task, examples, drawn, TrainingSettings(1, 64, 0.05, seed=seed), ignore, never)
        return weights_digest(drawn)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw_and_train, range(20)))

    assert together == alone


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_torch_threads_holds_for_every_thread(count):
    set_torch_threads(count)

    with ThreadPoolExecutor(1) as pool:
        assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (count, count)


# How it ends


def test_progress_is_told_after_every_batch():
    told = []

    train(
        Slope(),
        points((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)),
        weights_of(1.0),
        TrainingSettings(local_epochs=2, batch_size=2, learning_rate=0.25),
        told.append,
        never,
    )

    assert [(p.batch, p.batches, p.local_epoch, p.local_epochs) for p in told] == [
        (1, 4, 1, 2),
        (2, 4, 1, 2),
        (3, 4, 2, 2),
        (4, 4, 2, 2),
    ]
    assert [p.fraction for p in told] == [0.25, 0.5, 0.75, 1.0]
    assert [p.loss for p in told] == pytest.approx([1, 0.25, 0.0625, 0.015625])


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_cancelled_training_stops_within_one_batch(stop_after):
    told = []

    with pytest.raises(TrainingCancelled):
        train(
            Slope(),
            points((1.0, 0.0)),
            weights_of(1.0),
            replace(ONE_STEP_AT_A_TIME, local_epochs=10),
            told.append,
            lambda: len(told) >= stop_after,
        )

    assert len(told) == stop_after


def test_a_training_that_diverges_says_where():
    """The slope is multiplied by 1 - 800 each step, until its square is no float any more."""
    with pytest.raises(TrainingDiverged, match=r"the loss is inf at batch \d+ of 100; a smaller learning rate"):
        train(
            Slope(),
            points((2.0, 0.0)),
            weights_of(1.0),
            replace(ONE_STEP_AT_A_TIME, local_epochs=100, learning_rate=100.0),
            ignore,
            never,
        )


@pytest.mark.parametrize("start", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_noticed_at_the_first_batch(start):
    with pytest.raises(TrainingDiverged, match="batch 1 of 2"):
        train(Slope(), points((2.0, 0.0)), weights_of(start), ONE_STEP_AT_A_TIME, ignore, never)


@pytest.mark.parametrize("task", [Slope(), Hopeful()])
def test_a_last_step_that_diverges_gives_no_delta_whatever_the_metrics_say(task):
    with pytest.raises(TrainingDiverged, match="not finite"):
        train(
            task,
            points((2.0, 0.0)),
            weights_of(1.0),
            replace(ONE_STEP_AT_A_TIME, local_epochs=1, learning_rate=3e38),
            ignore,
            never,
        )


def test_there_must_be_something_to_learn_from_and_to_measure_with():
    nothing = Examples(torch.empty(0, 1), torch.empty(0, 1))

    with pytest.raises(NoExamples, match="no examples of slope"):
        train(Slope(), nothing, weights_of(1.0), ONE_STEP_AT_A_TIME, ignore, never)
    with pytest.raises(NoExamples, match="no examples of slope"):
        evaluate(Slope(), weights_of(1.0), nothing)


# A training loop of one's own


def test_a_task_may_train_by_a_loop_of_its_own():
    told = []

    result = train(OwnLoop(), points((2.0, 6.0)), weights_of(1.0), ONE_STEP_AT_A_TIME, told.append, never)

    assert result.delta["weight"].item() == 2
    assert result.metrics == {"loss": 0}
    assert [p.loss for p in told] == [0.5]


def test_a_loop_of_one_s_own_is_refused_what_it_does_not_support():
    with pytest.raises(UnsupportedTraining, match="own-loop does not support proximal") as caught:
        train(
            OwnLoop(), points((2.0, 6.0)), weights_of(1.0), replace(ONE_STEP_AT_A_TIME, proximal_mu=0.1), ignore, never
        )

    assert caught.value.missing == {"proximal"}


def test_a_loop_of_one_s_own_is_cancelled_when_it_reports():
    answers = iter([False, True])

    with pytest.raises(TrainingCancelled, match="after batch 1 of 1"):
        train(OwnLoop(), points((2.0, 6.0)), weights_of(1.0), ONE_STEP_AT_A_TIME, ignore, lambda: next(answers))


# What it costs and what it reaches


def test_training_does_not_load_torch_s_compiler():
    """Making one of torch's optimizers does, which takes a device longer than its first round."""
    code = """
import sys
from edge.tasks import DataSource, find_task, initial_weights
from edge.training import evaluate, train
task = find_task("linear")
examples, weights = task.training_examples(DataSource()), initial_weights(task, 0)
train(task, examples, weights, task.defaults, lambda progress: None, lambda: False)
evaluate(task, weights, task.test_examples())
print("torch._dynamo" in sys.modules)
"""
    root = str(Path(__file__).parents[2])

    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "", "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_device_alone_learns_the_line():
    task = find_task("linear")
    weights = initial_weights(task, 0)

    result = train(
        task, task.training_examples(DataSource()), weights, replace(task.defaults, local_epochs=3), ignore, never
    )

    assert evaluate(task, add(weights, (result.delta, 1.0)), task.test_examples())["accuracy"] == 1.0


@pytest.mark.parametrize(("kind", "at_least"), [("dirichlet", 0.90), ("iid", 0.95)])
@pytest.mark.parametrize("seed", [0, 1])
def test_five_devices_learn_the_digits_together_in_20_rounds(kind, at_least, seed):
    assert federated_accuracy(kind, seed) >= at_least
