"""A strategy that takes as long as a test wants, and opens updates all the while, as one does that has many.

JOURNEY_HOLD_AGGREGATION    a file: while it is there, the first update is opened again and again
"""

import os
import time
from pathlib import Path

from django.apps import AppConfig

from fl.strategies import STRATEGIES, Strategy
from fl.strategies.fedavg import average

LOOK_SECONDS = 0.02


def held_average(weights, state, contributions, config):
    while (hold := os.environ.get("JOURNEY_HOLD_AGGREGATION")) and Path(hold).exists():
        contributions[0].open()
        time.sleep(LOOK_SECONDS)
    return average(weights, state, contributions, config)


class SlowConfig(AppConfig):
    name = "tests.journeys.slow"
    label = "slow"

    def ready(self):
        STRATEGIES["held"] = Strategy("held", "FedAvg that may take long.", parameters={}, rule=held_average)
