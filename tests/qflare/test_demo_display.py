"""What the demonstration shows: a line for each round, bars on a terminal, and in both why nothing happens."""

import io

import pytest
from rich.console import Console

from qflare.demo.display import Bars, Lines, display_for

WAITS = "waiting for devices: 0 of 5 ready"
MODEL = {"metrics": {"loss": 0.5, "accuracy": 0.25}, "updates_received": 4, "updates_planned": 5}


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture(params=[False, True], ids=["lines", "bars"])
def display(request, said):
    console = Console(file=said, force_terminal=request.param, width=120)
    display = display_for(console, 20)
    assert isinstance(display, Bars if request.param else Lines)
    return display


def test_a_round_is_told_with_what_was_measured(display, said):
    display.round(3, MODEL)
    display.close()

    assert "round  3/20  loss 0.5000  accuracy 0.2500  4/5 updates" in said.getvalue()


def test_a_run_that_waits_says_what_for(display, said):
    display.waits(WAITS)
    display.close()

    assert WAITS in said.getvalue()


def test_bars_say_no_more_what_a_run_waits_for_once_it_goes_on(said):
    display = Bars(Console(file=said, force_terminal=True, width=120), 20)
    display.round(3, MODEL)
    display.waits(WAITS)
    said.truncate(0)

    display.waits("")
    display.close()

    last = said.getvalue().rpartition("round  3/20")
    assert last[1]
    assert WAITS not in last[2]


def test_without_a_terminal_a_reason_is_told_once_until_it_changes(said):
    display = Lines(Console(file=said, width=120), 20)

    for why in (WAITS, WAITS, "", WAITS, "waiting for devices: 4 of 5 ready"):
        display.waits(why)

    assert said.getvalue().splitlines() == [WAITS, WAITS, "waiting for devices: 4 of 5 ready"]
