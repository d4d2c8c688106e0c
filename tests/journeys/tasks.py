"""A task from outside the packages, for tests that need a device to be caught at a certain moment.

JOURNEY_HOLD    a file: while it is there, training waits after each batch
JOURNEY_HOLD_EVALUATION  a file: while it is there, measuring applies the model to one example after another
JOURNEY_SIGNAL  a signal's name: the device sends it to itself when it begins to send its first finished update
JOURNEY_MARK    a file that says that this has happened; it happens once
"""

import os
import signal
import sys
import time
from pathlib import Path

from edge.tasks.linear import Linear

LOOK_SECONDS = 0.01


class Patient(Linear):
    """A line through points, learned by those who can wait."""

    name = "patient"
    description = "A line through made-up points; trains no further while a file is there."

    def batches(self, examples, batch_size, generator):
        for batch in super().batches(examples, batch_size, generator):
            yield batch
            while (hold := os.environ.get("JOURNEY_HOLD")) and Path(hold).exists():
                time.sleep(LOOK_SECONDS)

    def evaluate(self, model, examples):
        while (hold := os.environ.get("JOURNEY_HOLD_EVALUATION")) and Path(hold).exists():
            model(examples.inputs[:1])
            time.sleep(LOOK_SECONDS)
        return super().evaluate(model, examples)


def _signal_at_upload(event, arguments):
    """Notice, as the interpreter tells it, that a finished update is opened to be sent."""
    if event != "open" or not isinstance(arguments[0], str | os.PathLike) or "r" not in (arguments[1] or ""):
        return
    path = Path(arguments[0])
    if path.parent.name == "updates" and path.suffix == ".safetensors":
        try:
            Path(os.environ["JOURNEY_MARK"]).touch(exist_ok=False)
        except FileExistsError:
            return
        # To this very thread: of a signal to the process another thread would take notice, and this one run on a while.
        signal.raise_signal(signal.Signals[os.environ["JOURNEY_SIGNAL"]])


if "JOURNEY_SIGNAL" in os.environ:
    sys.addaudithook(_signal_at_upload)
