"""A very long run in a real browser: what its script says of rounds it was not told one by one was measured by some."""

import re

import pytest

ROUNDS = 2490
MAKE = f"""
from datetime import timedelta
from django.db import transaction
from django.db.models import F
from fl.models import Run
from tests.fl.views.long_runs import long_run
with transaction.atomic():
    run = long_run({ROUNDS}, 0)
    run.models.update(metrics={{"accuracy": 0.5, "loss": 0.5}})
    run.models.filter(version=100).update(metrics={{"accuracy": 0.75, "loss": 0.25}})
    run.round_set.filter(number__gt=1400).update(ended_at=F("started_at") + timedelta(seconds=10))
    best = run.models.get(version=100)
    Run.objects.update(state="completed", ended_at=run.started_at, best_model=best)
"""


@pytest.fixture
def page(world, open_page):
    """The page of the run, live, as a viewer has it."""
    world.server.manage("shell", "-v0", "-c", MAKE)
    page = open_page(world.url)
    page.page.goto(f"{world.url}/sign-in/#code={world.prepare()['codes']['viewer']}")
    page.page.wait_for_url(f"{world.url}/")
    page.page.goto(f"{world.url}/runs/1/")
    page.wait_until_live()
    page.wait_for("document.querySelector('[data-field=best_loss]').textContent")
    return page


def rendered(page, field):
    """Return what the server wrote into a field."""
    return re.search(rf'data-field="{field}">([^<]*)<', page.page.request.get(page.page.url).text())[1]


def test_what_is_said_of_rounds_that_stand_in_columns_was_measured(page):
    fields = ("best", "best_note", "round_time")
    shown = {name: page.text(f"[data-part=figures] [data-field={name}]") for name in fields}
    page.page.press("[data-plot=accuracy]", "Home")
    page.wait_for("document.querySelector('[data-field=reading]').textContent.startsWith('Round 1:')")

    assert shown == {"best": "v100", "best_note": "accuracy 75.00 %", "round_time": "30.0 s"}
    assert shown == {name: rendered(page, name) for name in fields}
    assert page.text("[data-field=best_accuracy]") == "best 75.00 % in round 100"
    assert page.text("[data-field=best_loss]") == "best 0.2500 in round 100"
    values = "accuracy 50.00 % (50.00 % to 50.00 %), loss 0.5000 (0.5000 to 0.5000)"
    assert page.text("[data-field=reading]") == f"Round 1: {values} (rounds 0 to 1)"
    assert page.faults == []
