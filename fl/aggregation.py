"""How a round's updates become candidate weights, and how good they are: arithmetic between files, no states."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.tasks import initial_weights
from edge.training import TrainingCancelled, evaluate
from edge.weights import Spec, Weights, weights_digest
from edge.wire import encode, read_file
from fl import files
from fl.models import GlobalModel, Round, Run, Update
from fl.models.update import UpdateState
from fl.seeds import model_seed
from fl.strategies import Contribution, State, StepChoice, Strategy, apply_steps, check_config, find_strategy
from fl.tasks import spec_of_task, task_named, test_examples_of

Metrics = dict[str, float | None]


class Stopped(Exception):
    """The process is to end, so the work was left where it was."""


@dataclass(frozen=True)
class StoredModel:
    """Weights and strategy state, written and fsynced, that no row names yet."""

    digest: str
    file: str
    size: int
    strategy_state_file: str


def initial_model(run: Run) -> StoredModel:
    """Draw a run's initial weights from its seed and store them with the strategy's first state."""
    weights = initial_weights(task_named(run.task), model_seed(run.seed))
    strategy = find_strategy(run.strategy)
    config = check_config(strategy, run.strategy_config)
    return _store(weights, strategy.initial_state(weights, config))


def never() -> bool:
    """Say that the process goes on."""
    return False


def aggregate(round_: Round, *, is_stopping: Callable[[], bool] = never) -> StoredModel:
    """Apply the run's steps and strategy to the accepted updates in assignment order, and store what comes out.

    Args:
        is_stopping: is asked before each update is opened.

    Raises:
        Stopped: `is_stopping` said yes; nothing was stored.
        StrategyError: the strategy cannot, or the result is not finite.
        WireError, OSError: a file is not what its row says.
    """
    run, base = round_.run, round_.base_model
    strategy = find_strategy(run.strategy)
    config = check_config(strategy, run.strategy_config)
    weights = read_file(files.local_path(base.file), spec_of_task(run.task))
    state = _read_state(base, strategy, spec_of_task(run.task), config)
    updates = (
        Update.objects.filter(assignment__round=round_, state=UpdateState.ACCEPTED)
        .order_by("assignment__cohort_index")
        .values_list("num_examples", "file")
    )
    contributions = _contributions(updates, spec_of_task(run.task), is_stopping)
    seen = apply_steps([StepChoice(step["name"], step.get("config", {})) for step in run.steps], contributions)
    new_weights, new_state = strategy.apply(weights, state, seen, config)
    return _store(new_weights, new_state)


def evaluate_model(model: GlobalModel, *, is_stopping: Callable[[], bool] = never) -> Metrics | None:
    """Measure a model on the server's test split; None where the server has no data of the task.

    A metric that is not finite, as of a model that diverged, is None: no database keeps NaN in JSON.

    Args:
        is_stopping: is asked before each batch.

    Raises:
        Stopped: `is_stopping` said yes.
    """
    task = task_named(model.run.task)
    examples = test_examples_of(model.run.task)
    if examples is None:
        return None
    weights = read_file(files.local_path(model.file), spec_of_task(model.run.task))
    try:
        measured = evaluate(task, weights, examples, is_stopping)
    except TrainingCancelled as error:
        raise Stopped from error
    return {name: value if math.isfinite(value) else None for name, value in measured.items()}


def _contributions(
    updates: Iterable[tuple[int, str]], spec: Spec, is_stopping: Callable[[], bool]
) -> list[Contribution]:
    # Each file is mapped when the strategy opens it and let go after, so memory holds a few at a time.
    return [
        Contribution(num_examples, partial(_open, files.local_path(file), spec, is_stopping))
        for num_examples, file in updates
    ]


def _open(path: Path, spec: Spec, is_stopping: Callable[[], bool]) -> Weights:
    if is_stopping():
        raise Stopped
    return read_file(path, spec)


def _read_state(base: GlobalModel, strategy: Strategy, spec: Spec, config: Mapping[str, float]) -> State:
    state_spec = strategy.state_spec(spec, config)
    return read_file(files.local_path(base.strategy_state_file), state_spec) if state_spec else {}


def _store(weights: Weights, state: State) -> StoredModel:
    digest = weights_digest(weights)
    data = encode(weights)
    file = files.save_bytes(f"models/{digest}.safetensors", data)
    state_file = ""
    if state:
        state_file = files.save_bytes(f"models/{digest}-{weights_digest(state)[:16]}.state.safetensors", encode(state))
    return StoredModel(digest=digest, file=file, size=len(data), strategy_state_file=state_file)
