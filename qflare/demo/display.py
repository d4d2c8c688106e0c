"""What the terminal shows of the run: bars where there is a terminal, a line for each round where there is none."""

from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Display(Protocol):
    """Told what happens, shows it."""

    def device(self, name: str, share: float, what: str) -> None:
        """A device is this far."""

    def round(self, number: int, model: dict[str, Any]) -> None:
        """A round has made this model."""

    def waits(self, why: str) -> None:
        """The run goes on only after something, or, with an empty text, goes on."""

    def close(self) -> None:
        """The run is over."""


def display_for(console: Console, rounds: int) -> Display:
    """Return the display that fits the terminal."""
    return Bars(console, rounds) if console.is_terminal else Lines(console, rounds)


def describe(number: int, rounds: int, model: dict[str, Any]) -> str:
    """Return one line about a round, from what the server measured."""
    metrics = model.get("metrics")
    if metrics is None:
        measured = "not evaluated here"
    else:
        measured = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)
    updates = f"{model['updates_received']}/{model['updates_planned']} updates" if number else "initial model"
    return f"round {number:>2}/{rounds}  {measured}  {updates}"


class Lines:
    """One line for each round."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._why = ""

    def device(self, name: str, share: float, what: str) -> None:
        """Say nothing: a log would drown in it."""

    def round(self, number: int, model: dict[str, Any]) -> None:
        self._console.print(describe(number, self._rounds, model), highlight=False)

    def waits(self, why: str) -> None:
        if why and why != self._why:
            self._console.print(why, highlight=False)
        self._why = why

    def close(self) -> None:
        """Nothing is left to do."""


class Bars:
    """A bar for the run and one for each device."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._rounds = rounds
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._newest = "starting"
        self._run = self._progress.add_task("run", total=rounds, what=self._newest)
        self._devices: dict[str, TaskID] = {}
        self._progress.start()

    def device(self, name: str, share: float, what: str) -> None:
        if name not in self._devices:
            self._devices[name] = self._progress.add_task(f"  {name}", total=1.0, what="")
        self._progress.update(self._devices[name], completed=share, what=what)

    def round(self, number: int, model: dict[str, Any]) -> None:
        self._newest = describe(number, self._rounds, model)
        self._progress.update(self._run, completed=number, what=self._newest)

    def waits(self, why: str) -> None:
        self._progress.update(self._run, what=why or self._newest)

    def close(self) -> None:
        self._progress.stop()
