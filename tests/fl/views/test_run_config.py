"""A run's configuration: every setting with its meaning, and texts that make an equal run."""

import html
import json
import re
import shlex
import tomllib
from dataclasses import fields
from itertools import pairwise

import pytest
from django.test import Client
from django.urls import reverse

from fl import runs
from fl.models import Device, Run
from fl.queries import run_tabs as queries
from fl.roles import Role
from fl.runs import RunPlan
from fl.visibility import Principal
from tests.builders import NOW, fleet, person
from tests.fl.views.answers import after_one_round, plan_named, text_of

pytestmark = pytest.mark.django_db

RICH = RunPlan(
    name='winter "north" \\ Zürich',
    task="linear",
    strategy="fedprox",
    rounds=7,
    cohort_size=4,
    quorum=3,
    seed=2**60,
    strategy_config={"mu": 0.25},
    steps=[{"name": "clip_norm", "config": {"max_norm": 2.5}}],
    local_epochs=2,
    batch_size=8,
    learning_rate=1e-05,
    momentum=0.5,
    cohort_wait_seconds=1.5,
    deadline_seconds=33.0,
    min_examples=3,
    max_update_norm=12.5,
    public=True,
    keep_updates=True,
)
PLAIN = plan_named("it's plain")


def copied(client, run, key):
    """Return one of the texts to copy, as a browser would put it on the clipboard."""
    page = client.get(reverse("run-config", args=[run.pk])).content.decode()
    return html.unescape(re.search(rf'<pre[^>]*id="copy-{key}">(.*?)</pre>', page, re.DOTALL)[1])


def settings_of(run):
    return {field.name: getattr(run, field.name) for field in fields(RunPlan)} | {"task_digest": run.task_digest}


@pytest.mark.parametrize("plan", [RICH, PLAIN], ids=["rich", "plain"])
def test_the_copied_json_makes_an_equal_run(operator, plan):
    run = runs.create_run(plan=plan, created_by=None, now=NOW)

    answer = operator.post("/api/v1/runs/", copied(operator, run, "json"), content_type="application/json")

    assert answer.status_code == 201, answer.content
    assert settings_of(Run.objects.get(pk=answer.json()["id"])) == settings_of(run)


@pytest.mark.parametrize("plan", [RICH, PLAIN], ids=["rich", "plain"])
def test_the_copied_toml_says_the_same_as_the_json(viewer, plan):
    run = runs.create_run(plan=plan, created_by=None, now=NOW)

    said = json.loads(copied(viewer, run, "json"))
    toml = tomllib.loads(copied(viewer, run, "toml"))

    assert {"strategy_config": {}, "steps": [], **toml} == {name: said[name] for name in said if said[name] is not None}


@pytest.mark.parametrize("plan", [RICH, PLAIN], ids=["rich", "plain"])
def test_the_copied_command_makes_an_equal_run_for_who_has_the_cookies_and_holds_no_secret(plan):
    run = runs.create_run(plan=plan, created_by=None, now=NOW)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person("omar", "operator"))
    browser.get(reverse("new-run"))  # a page with a form, which sets the cookie
    session, csrf = browser.cookies["sessionid"].value, browser.cookies["csrftoken"].value

    text = copied(browser, run, "cli")
    words = shlex.split(text.replace("\\\n", ""))
    given = dict(pairwise(words))
    headers = [word for before, word in pairwise(words) if before == "--header"]
    headers = dict(header.replace("$QFLARE_CSRF", csrf).split(": ", 1) for header in headers)
    kind = headers.pop("Content-Type")
    answer = browser.post("/api/v1/runs/", given["--data"], content_type=kind, headers=headers)

    assert session not in text
    assert csrf not in text
    assert given["POST"] == "http://testserver/api/v1/runs/"
    assert given["--cookie"] == "sessionid=$QFLARE_SESSION; csrftoken=$QFLARE_CSRF"
    assert answer.status_code == 201, answer.content
    assert settings_of(Run.objects.get(pk=answer.json()["id"])) == settings_of(run)


def test_every_setting_of_a_plan_is_shown_with_its_meaning(viewer):
    run = runs.create_run(plan=RICH, created_by=None, now=NOW)

    page = viewer.get(reverse("run-config", args=[run.pk])).content.decode()

    rows = re.findall(r'<tr><th scope="row" class="mono">([^<]*)</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>', page)
    shown = {name: html.unescape(value) for name, value, _ in rows}
    wanted = {field.name for field in fields(RunPlan)} - {"name", "strategy_config", "steps"}
    assert wanted - set(shown) == set()
    assert all(meaning for _, _, meaning in rows)
    assert shown["fedprox.mu"] == "0.25"
    assert shown["clip_norm.max_norm"] == "2.5"
    assert shown["deadline_seconds"] == "33 s"
    assert shown["local_epochs"] == "2 epochs"
    assert shown["task_digest"] == run.task_digest


def test_the_versions_are_those_of_the_devices_that_took_part(viewer):
    run = after_one_round()
    Device.objects.filter(pk=Device.objects.first().pk).update(edge_version="0.2.0")
    fleet(1)

    found = queries.configuration(Principal(role=Role.VIEWER), run.pk)

    assert found.versions == [("0.1.0", 1), ("0.2.0", 1)]
    assert "version 0.2.0" in text_of(viewer.get(reverse("run-config", args=[run.pk])))
