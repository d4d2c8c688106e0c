"""A task whose weights have 200 MB; nobody trains it."""

from torch import nn

from edge.tasks import ClassificationTask, DataSource, Examples


class Wide(ClassificationTask):
    """One layer of fifty million numbers."""

    name = "wide"
    description = "One layer of fifty million numbers, for measuring transfers."

    def build_model(self) -> nn.Module:
        """Return it."""
        return nn.Linear(5_000, 10_000, bias=False)

    def training_examples(self, source: DataSource) -> Examples:
        """Refuse: there are none."""
        raise NotImplementedError("this task is for measuring transfers")
