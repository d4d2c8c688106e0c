"""FedAvg: the next weights are the last ones plus the mean delta."""

from collections.abc import Sequence

from edge.weights import Weights
from fl.strategies.base import Config, Contribution, State, Strategy, gettext_noop
from fl.strategies.mean import weighted_mean, with_counts


def average(
    weights: Weights, state: State, contributions: Sequence[Contribution], config: Config
) -> tuple[Weights, State]:
    """x ← x + Δ, with Δ the deltas' mean by `num_examples`; integer tensors keep the server's value.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017, Alg. 1.
    """
    mean = weighted_mean(weights, contributions)
    # In the mean's own memory: a second copy of the model would be the largest thing here.
    stepped = {name: delta.add_(weights[name]).to(weights[name].dtype) for name, delta in mean.items()}
    return with_counts(weights, stepped), {}


FEDAVG = Strategy(
    name="fedavg",
    description=gettext_noop("Averages what the devices learned, each by its number of examples."),
    parameters={},
    rule=average,
)
