"""From files to candidate weights and back: in assignment order, from what rows name, and checked on the way."""

import pytest
import torch

from edge.weights import weights_digest
from edge.wire import WireError, read_file
from fl import aggregation, files
from fl.models import Update
from fl.rounds import newest_model
from fl.strategies import NoContributions
from fl.tasks import spec_of_task
from tests.builders import current_round, fleet, started_run, step

pytestmark = pytest.mark.django_db


def delta(weight, bias):
    return {"weight": torch.full((1, 4), weight), "bias": torch.tensor([bias])}


@pytest.fixture
def received():
    """A run whose round has two updates: of 10 and of 30 examples."""
    senders = fleet(2)
    run = started_run()
    step(run)
    senders[1].send(delta(0.4, 4.0), num_examples=30)
    senders[0].send(delta(0.0, 0.0), num_examples=10)
    return run


def weights_of(model):
    return read_file(files.local_path(model.file), spec_of_task("linear"))


def test_updates_count_by_their_examples(received):
    base = weights_of(newest_model(received))

    stored = aggregation.aggregate(current_round(received))

    new = read_file(files.local_path(stored.file), spec_of_task("linear"))
    torch.testing.assert_close(new["weight"], base["weight"] + 0.3)
    torch.testing.assert_close(new["bias"], base["bias"] + 3.0)
    assert stored.digest == weights_digest(new)
    assert stored.file == f"models/{stored.digest}.safetensors"
    assert stored.size == files.local_path(stored.file).stat().st_size
    assert stored.strategy_state_file == ""


def test_aggregating_again_comes_to_the_same_bits(received):
    assert aggregation.aggregate(current_round(received)) == aggregation.aggregate(current_round(received))


def test_only_accepted_updates_of_the_round_count(received):
    other = aggregation.aggregate(current_round(received))
    Update.objects.filter(num_examples=30).update(state="late", file="")

    alone = aggregation.aggregate(current_round(received))

    assert alone.digest == newest_model(received).digest != other.digest


def test_a_round_without_updates_is_not_aggregated():
    fleet(2)
    run = started_run()
    step(run)

    with pytest.raises(NoContributions):
        aggregation.aggregate(current_round(run))


def test_a_file_that_is_gone_or_another_is_noticed(received):
    update = Update.objects.get(num_examples=30)
    path = files.local_path(update.file)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WireError):
        aggregation.aggregate(current_round(received))

    path.unlink()
    with pytest.raises(FileNotFoundError):
        aggregation.aggregate(current_round(received))


def test_a_lost_file_fails_the_round_and_the_run_goes_on(received):
    files.local_path(Update.objects.get(num_examples=30).file).unlink()

    step(received)

    failed = received.round_set.get(number=1)
    assert failed.state == "failed"
    assert "aggregation failed" in failed.reason
    assert current_round(received).number == 2


def test_a_strategy_with_a_state_keeps_it_in_a_file_of_its_own():
    run = started_run(strategy="fedadam")

    model = newest_model(run)

    spec = spec_of_task("linear")
    state = read_file(
        files.local_path(model.strategy_state_file),
        {f"{moment}/{name}": tensor for moment in ("m", "v") for name, tensor in spec.items()},
    )
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for name, tensor in state.items() if name[0] == "m")
    assert all(torch.all(tensor == torch.tensor(1e-6)) for name, tensor in state.items() if name[0] == "v")


def test_a_measured_model_has_finite_metrics_or_none(received):
    model = newest_model(received)

    assert aggregation.evaluate_model(model) == model.metrics
    assert set(model.metrics) == {"loss", "accuracy"}
    assert 0 <= model.metrics["accuracy"] <= 1
