"""What a person reads on a page, what its scripts start from, and a run to look at."""

import json
import re

from fl import runs
from tests.builders import fleet, started_run, step


def text_of(response):
    """Return what a person reads on a page, scripts and templates aside."""
    html = re.sub(r"<(script|template|style)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def state_of(response):
    """Return what the page's scripts start from."""
    return json.loads(re.search(r'<script id="state"[^>]*>(.*?)</script>', response.content.decode(), re.DOTALL)[1])


def after_one_round():
    """Make a run of two rounds whose first is completed by two devices."""
    first, second = fleet(2)
    run = started_run(cohort_size=2)
    step(run)
    for device in (first, second):
        device.send()
    step(run)
    step(run)
    run.refresh_from_db()
    return run


def plan_named(name):
    """Return the plan of a run that could be started."""
    return runs.RunPlan(name=name, task="linear")
