"""`manage.py export`: a run's rounds as files, for those who look at them elsewhere."""

from argparse import ArgumentParser
from itertools import chain
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fl.models import Run
from fl.queries.run_list import run_number
from fl.queries.run_rounds import all_rounds
from fl.tensorboard import write_events
from fl.views.run_exports import rounds_text
from qflare.management.commands.serve import check_migrations

TENSORBOARD_NEEDS = "tensorboardX==2.6.5"
"""As requirements-dev.txt pins it; a server that exports nothing for TensorBoard goes without."""


class Command(BaseCommand):
    """Writes the rounds of a run, as they are now, for TensorBoard, as CSV and as JSON."""

    help = "Write a run's rounds into files. Example: manage.py export r-0042 --tensorboard logs --csv rounds.csv"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", help="a run's number or label: 42, r-0042")
        parser.add_argument(
            "--tensorboard", type=Path, metavar="DIR", help="event files for TensorBoard: DIR/r-0042, written anew"
        )
        parser.add_argument("--csv", type=Path, metavar="FILE", help="one line a round, as the run's page has it")
        parser.add_argument("--json", type=Path, metavar="FILE", help="the same as a list of objects")

    def handle(
        self, *_: Any, run: str, tensorboard: Path | None, csv: Path | None, json: Path | None, **__: Any
    ) -> None:
        if not (tensorboard or csv or json):
            raise CommandError("nothing to write.\nName one or more of --tensorboard DIR, --csv FILE, --json FILE")
        check_migrations()
        found = _run_named(run)
        try:
            if tensorboard:
                self._write_events(found, tensorboard / found.label)
            for kind, path in (("csv", csv), ("json", json)):
                if path:
                    self._write_text(found, kind, path)
        except OSError as error:
            raise CommandError(f"this cannot be written: {error}") from error

    def _write_events(self, run: Run, folder: Path) -> None:
        lines = chain.from_iterable(all_rounds(run))
        try:
            write_events(lines, folder, began_at=run.started_at or run.created_at)
        except ModuleNotFoundError as error:
            raise CommandError(
                f"{error.name} is not installed, which --tensorboard needs.\nRun: pip install {TENSORBOARD_NEEDS}"
            ) from error
        self.stdout.write(f"wrote {folder}")

    def _write_text(self, run: Run, kind: str, path: Path) -> None:
        # The lines have their ends already.
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(rounds_text(run, kind))
        self.stdout.write(f"wrote {path}")


def _run_named(text: str) -> Run:
    number = run_number(text)
    there = Run.objects.filter(deleted_at__isnull=True).select_related("best_model")
    run = None if number is None else there.filter(pk=number).first()
    if run is None:
        raise CommandError(f"there is no run {text}.\nThe page of all runs has their numbers")
    return run
