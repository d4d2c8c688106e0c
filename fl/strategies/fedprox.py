"""FedProx: FedAvg on the server; on the device, training is held near the global model."""

from fl.strategies.base import Parameter, Strategy, gettext_noop
from fl.strategies.fedavg import average

FEDPROX = Strategy(
    name="fedprox",
    description=gettext_noop("FedAvg for devices whose data differ: training adds μ(w − x) to each gradient."),
    parameters={
        "mu": Parameter(
            0.01, 0.0, 10.0, gettext_noop("μ: how strongly a device is held near the global model; 0 is FedAvg")
        ),
    },
    # Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, Algorithm 2: the mean is FedAvg's.
    rule=average,
)
