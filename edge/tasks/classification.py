"""What all tasks that put an input into one of several classes share: cross-entropy and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.tasks.base import Batch, Examples, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

EVALUATION_CHUNK = 1_000
"""Examples measured at a time, which bounds the memory for activations."""


class ClassificationTask(Task):
    """A task whose model gives logits (b, classes) and whose targets are class numbers (b,) int64."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn stored inputs into what the model takes; a task that stores bytes makes numbers of them here."""
        return inputs

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(model(self.prepare(batch.inputs)), batch.targets)

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Measure the mean cross-entropy (`loss`) and the fraction put into the right class (`accuracy`)."""
        from torch.nn import functional

        loss, right = 0.0, 0
        for inputs, targets in examples.chunks(EVALUATION_CHUNK):
            logits = model(self.prepare(inputs))  # (b, classes)
            loss += functional.cross_entropy(logits, targets, reduction="sum").item()
            right += int((logits.argmax(dim=1) == targets).sum())
        return {"loss": loss / len(examples), "accuracy": right / len(examples)}
