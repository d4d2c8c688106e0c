"""A task whose weights have 200 MB; nobody trains it."""

from torch import nn

from edge.tasks import ClassificationTask


class _Zeros(nn.Linear):
    """Weights that cost no time to draw."""

    def reset_parameters(self):
        nn.init.zeros_(self.weight)


class Wide(ClassificationTask):
    """One layer of fifty million numbers."""

    name = "wide"
    description = "One layer of fifty million numbers, for transfers."

    def build_model(self):
        return _Zeros(5_000, 10_000, bias=False)

    def training_examples(self, source):
        raise NotImplementedError("this task is for transfers")
