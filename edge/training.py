"""The training loop: global weights in; what this device learned, as a delta, out."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge.tasks import (
    Examples,
    InvalidSettings,
    OwnLoopTask,
    Progress,
    Report,
    Task,
    TrainingSettings,
    build_model,
    missing_support,
    seed_global_generator,
)
from edge.weights import Weights, is_finite

__all__ = [
    "InvalidSettings",
    "NoExamples",
    "Progress",
    "TrainingCancelled",
    "TrainingDiverged",
    "TrainingError",
    "TrainingResult",
    "TrainingSettings",
    "UnsupportedTraining",
    "evaluate",
    "set_torch_threads",
    "train",
]


class TrainingError(Exception):
    """
    TrainingError
    ├── NoExamples           there is nothing to learn from
    ├── UnsupportedTraining  the task's own loop cannot do what the settings ask
    ├── TrainingCancelled    the caller asked to stop
    └── TrainingDiverged     the numbers are no longer finite
    """


class NoExamples(TrainingError):
    """There is nothing to learn from."""


class UnsupportedTraining(TrainingError):
    """The task's own loop cannot do what the settings ask.

    Attributes:
        missing: what it cannot do.
    """

    def __init__(self, task: Task, missing: frozenset[str]) -> None:
        self.missing = missing
        super().__init__(f"the training loop of {task.name} does not support {', '.join(sorted(missing))}")


class TrainingCancelled(TrainingError):
    """The caller asked to stop."""


class TrainingDiverged(TrainingError):
    """The loss or the weights are no longer finite numbers."""


@dataclass(frozen=True)
class TrainingResult:
    """What a device learned.

    Attributes:
        delta: local minus global weights, under the same names, shapes and dtypes. Whole numbers (such as a count of
            batches) are subtracted too; of truth values it tells which changed.
        num_examples: the examples trained on.
        metrics: of the local model on the device's own examples after training; finite numbers.
    """

    delta: Weights
    num_examples: int
    metrics: dict[str, float]


def train(
    task: Task,
    examples: Examples,
    weights: Weights,
    settings: TrainingSettings,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> TrainingResult:
    """Train the task's model from the global weights on a device's own examples.

    The same arguments give the same bits, for one number of torch threads and one version of torch. A model that draws
    numbers itself (dropout) draws from torch's global generator, seeded here: for such a model this holds if no other
    thread of the process draws at the same time.

    Args:
        on_progress: called after every batch; it limits its own rate.
        should_stop: asked before the first batch and after every batch.

    Raises:
        NoExamples: `examples` is empty.
        UnsupportedTraining: the task has a loop of its own, which cannot do what the settings ask.
        TrainingCancelled: `should_stop` answered yes.
        TrainingDiverged: a loss, a metric or a weight is not finite.
    """
    if not len(examples):
        raise NoExamples(f"there are no examples of {task.name} to learn from")
    if missing := missing_support(task, settings.needs):
        raise UnsupportedTraining(task, missing)
    if should_stop():
        raise TrainingCancelled("cancelled before the first batch")

    loaded = _borrow(task, weights)
    loaded.model.train()
    report = _reporter(on_progress, should_stop)
    seed_global_generator(settings.seed)
    if isinstance(task, OwnLoopTask):
        task.train(loaded.model, examples, settings, report)
        local = loaded.model.state_dict()
    else:
        _fit(task, loaded, examples, settings, report)
        local = loaded.state

    delta = _difference(local, weights)
    metrics = _measure(task, loaded.model, examples)
    if not is_finite(delta) or not all(map(math.isfinite, metrics.values())):
        raise TrainingDiverged(f"after {settings.local_epochs} local epochs the weights or the metrics are not finite")
    _give_back(task, loaded)
    return TrainingResult(delta, len(examples), metrics)


def evaluate(
    task: Task, weights: Weights, examples: Examples, should_stop: Callable[[], bool] | None = None
) -> dict[str, float]:
    """Measure weights on examples; a measure of weights that diverged may be infinite or no number.

    Args:
        should_stop: asked each time the task applies the model, so before every batch.

    Raises:
        NoExamples: `examples` is empty.
        TrainingCancelled: `should_stop` answered yes.
    """
    if not len(examples):
        raise NoExamples(f"there are no examples of {task.name} to measure with")
    loaded = _borrow(task, weights)
    if should_stop is None:
        metrics = _measure(task, loaded.model, examples)
    else:
        with _asking(loaded.model, should_stop):
            metrics = _measure(task, loaded.model, examples)
    _give_back(task, loaded)
    return metrics


def set_torch_threads(count: int) -> None:
    """Let each of torch's operations use `count` threads, at least 1, in this whole process.

    Several processes on one machine that all use every core slow each other down by far more than they gain.
    """
    torch.set_num_threads(count)


def _fit(task: Task, loaded: _Loaded, examples: Examples, settings: TrainingSettings, report: Report) -> None:
    shuffle = torch.Generator().manual_seed(settings.seed)
    step = _Step(loaded.parameters, settings)
    batches = settings.local_epochs * task.num_batches(examples, settings.batch_size)
    batch_number = 0
    for local_epoch in range(1, settings.local_epochs + 1):
        for batch in task.batches(examples, settings.batch_size, shuffle):
            loss = task.loss(loaded.model, batch)
            step(torch.autograd.grad(loss, loaded.parameters, allow_unused=True))
            batch_number += 1
            report(Progress(batch_number, batches, local_epoch, settings.local_epochs, loss.item()))


class _Step:
    """SGD with momentum, and FedProx's pull towards the global weights.

    Not torch.optim.SGD: making one imports torch's compiler, about a second and 80 MB for every device.

    v ← momentum · v + g + μ(w - x);  w ← w - learning_rate · v.
    Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> None:
        self._learning_rate = settings.learning_rate
        self._momentum = settings.momentum
        self._mu = settings.proximal_mu
        self._weights = [parameter.detach() for parameter in parameters]  # the same memory, outside of autograd
        self._global = [weight.clone() for weight in self._weights] if self._mu else self._weights
        self._velocity = [torch.zeros_like(weight) for weight in self._weights] if self._momentum else self._weights

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        parts = zip(self._weights, self._global, self._velocity, gradients, strict=True)
        used = [part for part in parts if part[3] is not None]  # those that this batch used
        if not used:
            return
        # All tensors in one call: where several devices train in a process, each call lets the others take turns,
        # which costs more than the arithmetic of a small tensor.
        weights, global_weights, velocity, directions = map(list, zip(*used, strict=True))
        if self._mu:
            pull = torch._foreach_sub(weights, global_weights)
            directions = list(torch._foreach_add(directions, pull, alpha=self._mu))
        if self._momentum:
            torch._foreach_mul_(velocity, self._momentum)
            torch._foreach_add_(velocity, directions)
            directions = velocity
        torch._foreach_add_(weights, directions, alpha=-self._learning_rate)


def _reporter(on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> Report:
    def report(progress: Progress) -> None:
        if not math.isfinite(progress.loss):
            raise TrainingDiverged(
                f"the loss is {progress.loss} at batch {progress.batch} of {progress.batches}; "
                "a smaller learning rate may help"
            )
        on_progress(progress)
        if should_stop():
            raise TrainingCancelled(f"cancelled after batch {progress.batch} of {progress.batches}")

    return report


class _Loaded:
    """A model that holds the weights of one training or evaluation.

    Attributes:
        state: its state dict's tensors, which are the model's own memory: they change with it.
        parameters: those that are learned.
        is_reusable: replacing `state` replaces all that the model remembers.
    """

    def __init__(self, task: Task, weights: Weights) -> None:
        self.model = build_model(task)
        self.model.load_state_dict(weights)
        self.state: Weights = self.model.state_dict()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        kept = {tensor.data_ptr() for tensor in self.state.values()}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        # A loop of the task's own may do anything to a model: freeze, replace, hook.
        self.is_reusable = not isinstance(task, OwnLoopTask) and {tensor.data_ptr() for tensor in tensors} == kept

    def load(self, weights: Weights) -> None:
        """Replace the weights; names, shapes and dtypes are those of the task, as `edge.wire` has seen to."""
        for name, tensor in self.state.items():
            tensor.copy_(weights[name])


class _Idle(threading.local):
    """The model that a thread used last and nobody uses now; building one anew takes a lock that all threads share."""

    task: Task | None = None
    loaded: _Loaded | None = None


_idle = _Idle()


def _borrow(task: Task, weights: Weights) -> _Loaded:
    """Return a model with these weights that nobody else holds; who fails with it does not give it back."""
    loaded = _idle.loaded if _idle.task is task else None
    _idle.task = _idle.loaded = None
    if loaded is None:
        return _Loaded(task, weights)
    loaded.load(weights)
    return loaded


def _give_back(task: Task, loaded: _Loaded) -> None:
    """Keep a model for this thread's next training, unless more than its state dict may have changed."""
    if loaded.is_reusable:
        _idle.task, _idle.loaded = task, loaded


def _measure(task: Task, model: nn.Module, examples: Examples) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {name: float(value) for name, value in task.evaluate(model, examples).items()}


@contextmanager
def _asking(model: nn.Module, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Ask before each use of a model whether to stop: a task measures by itself, and tells nobody how far it is."""

    def ask(*_: object) -> None:
        if should_stop():
            raise TrainingCancelled("cancelled while measuring")

    hook = model.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        hook.remove()


def _difference(local: Weights, global_weights: Weights) -> Weights:
    return {name: _minus(tensor, global_weights[name]) for name, tensor in local.items()}


def _minus(local: Tensor, global_value: Tensor) -> Tensor:
    if local.dtype == torch.bool:
        return local.logical_xor(global_value)
    return local.sub(global_value)
