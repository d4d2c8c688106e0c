"""A run's rounds as TensorBoard reads them: a file of scalars, each at its round and at the time when that ended."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fl.round_lines import RoundLine

SUFFIX = ".qflare"
"""By which one knows the files that are ours, among those that TensorBoard reads in a folder."""


def write_events(lines: Iterable[RoundLine], folder: Path, *, began_at: datetime) -> None:
    """Write the rounds that have ended into a folder, in place of what was written there before.

    Args:
        lines: of one run, oldest first.
        began_at: when the run began, which is the time of its initial evaluation.

    Raises:
        ModuleNotFoundError: tensorboardX is not installed.
        OSError: the folder cannot be written to.
    """
    from tensorboardX import SummaryWriter  # late, since who does not ask for it need not have it

    folder.mkdir(parents=True, exist_ok=True)
    # Made elsewhere: TensorBoard may be looking, and draws two files of one run as a curve that goes to and fro.
    with TemporaryDirectory() as made:
        with SummaryWriter(logdir=made, filename_suffix=SUFFIX) as writer:
            for line in lines:
                ended_at = began_at if line.number == 0 else line.ended_at
                if ended_at is None:
                    continue
                for tag, value in scalars_of(line):
                    writer.add_scalar(tag, value, global_step=line.number, walltime=ended_at.timestamp())
        for earlier in folder.glob(f"*{SUFFIX}"):
            earlier.unlink()
        for file in Path(made).iterdir():
            shutil.move(file, folder / file.name)


def scalars_of(line: RoundLine) -> Iterator[tuple[str, float]]:
    """Yield what is told of a round: a tag, such as `accuracy/devices_p10`, and its value; nothing for what is not."""
    for name, measured in (line.metrics or {}).items():
        if measured is not None:
            yield f"{name}/server", measured
    for name, spread in line.device_metrics.items():
        for part in ("mean", "p10", "p90"):
            if (reported := getattr(spread, part)) is not None:
                yield f"{name}/devices_{part}", reported
    if line.number == 0:
        return  # no device took part
    yield "round/updates_received", line.updates_received
    yield "round/updates_lost", line.updates_lost
    if line.duration_seconds is not None:
        yield "round/duration_seconds", line.duration_seconds
