"""The pages: complete without scripts, by role, and true to the database at the positions they carry."""

import json
import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from edge.protocol.enrollment import parse_token
from fl import devices, people, runs
from fl.lifecycle import DeviceState, RunState
from fl.models import Device, EnrollmentToken, Event, Run, Stream
from tests.builders import NOW, fleet, participant, person, started_run, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer(client):
    client.force_login(person("vera", "viewer"))
    return client


@pytest.fixture
def operator(client):
    client.force_login(person("omar", "operator"))
    return client


@pytest.fixture
def admin(client):
    client.force_login(person("ada", "admin"))
    return client


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


# ── who may come in ───────────────────────────────────────────────────────────────────────────────────────────────────

READ_PAGES = ["overview", "run-list", "device-list"]
WRITE_PAGES = ["new-run", "enroll-device"]


@pytest.mark.parametrize("name", READ_PAGES + WRITE_PAGES)
def test_whoever_is_not_signed_in_is_sent_to_the_login_and_back(client, name):
    response = client.get(reverse(name))

    assert response.status_code == 302
    assert response.url == f"/login/?next={reverse(name)}"


@pytest.mark.parametrize("name", READ_PAGES + WRITE_PAGES)
def test_a_person_without_a_role_is_refused(client, name):
    client.force_login(person("nobody"))

    assert client.get(reverse(name)).status_code == 403


@pytest.mark.parametrize("name", READ_PAGES)
def test_a_public_dashboard_may_be_read_by_everybody(client, settings, name):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert client.get(reverse(name)).status_code == 200


@pytest.mark.parametrize("name", WRITE_PAGES)
def test_a_public_dashboard_may_be_changed_by_nobody(client, settings, name):
    settings.QFLARE_PUBLIC_DASHBOARD = True

    assert client.get(reverse(name)).url.startswith("/login/")


def test_a_public_dashboard_shows_no_keys(client, settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True
    device = participant("kiosk").device

    page = client.get(reverse("device-list"))

    assert "kiosk" in text_of(page)
    assert device.fingerprint[:12] not in page.content.decode()


def test_a_control_that_a_viewer_may_not_use_is_not_drawn_and_is_refused_all_the_same(viewer):
    run = started_run()

    page = viewer.get(reverse("run", args=[run.pk]))
    refused = [
        viewer.post(reverse("command-run", args=[run.pk, "pause"])),
        viewer.post(reverse("stop-run", args=[run.pk]), {"when": "now"}),
        viewer.post(reverse("start-demo")),
    ]

    assert "data-command" not in page.content.decode()
    assert [response.status_code for response in refused] == [403] * 3
    run.refresh_from_db()
    assert run.state == RunState.RUNNING


# ── the overview ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_run_the_overview_is_a_guide(viewer):
    page = text_of(viewer.get("/"))

    assert "Your server is ready" in page
    assert "Start the demo run" not in page


def test_the_demo_button_is_there_once_a_device_that_offers_its_task_is_online(operator):
    participant("clinic", task="digits").connect()

    page = operator.get("/").content.decode()

    form = re.search(r"<form[^>]*data-demo[^>]*>", page)[0]
    assert "hidden" not in form


def test_the_demo_button_starts_a_run_of_the_devices_that_are_there(operator):
    for name in ("clinic", "gateway"):
        participant(name, task="digits").connect()

    response = operator.post(reverse("start-demo"))

    run = Run.objects.get()
    assert response.url == reverse("run", args=[run.pk])
    assert (run.task, run.cohort_size, run.rounds, run.state) == ("digits", 2, 20, RunState.RUNNING)
    assert run.created_by.username == "omar"


def test_the_demo_without_a_device_says_what_is_missing(operator):
    page = operator.post(reverse("start-demo"), follow=True)

    assert "No device that offers the task digits is online. Enrol a device, start it, and try again." in text_of(page)
    assert not Run.objects.exists()


def test_a_run_is_shown_whole_without_scripts(viewer):
    run = after_one_round()

    page = text_of(viewer.get("/"))

    model = run.models.get(version=1)
    assert f"Loss {model.metrics['loss']:.4f}" in page
    assert "Round 2 of 2" in page
    assert f"Round {run.label}" not in page
    assert "2 of 2 online" in page
    assert "Round 1 is completed" in page


def test_what_was_not_measured_is_not_shown_as_a_number(viewer):
    run = started_run()
    run.models.update(metrics=None)

    page = text_of(viewer.get("/"))

    assert "not evaluated here" in page


def test_a_metric_that_is_not_finite_is_null_for_the_scripts(viewer):
    run = started_run()
    run.models.update(metrics={"loss": None, "accuracy": None})

    initial, _ = state_of(viewer.get("/"))["rounds"]

    assert initial["metrics"] == {"loss": None, "accuracy": None}


def test_the_page_carries_the_positions_it_was_rendered_at(viewer):
    run = after_one_round()

    state = state_of(viewer.get("/"))

    for name in (run.stream, "system"):
        stream = Stream.objects.get(pk=name)
        assert state["positions"][name] == {"epoch": stream.epoch, "seq": stream.head}


def test_a_page_carries_no_position_of_a_devices_own_stream(admin):
    participant("clinic")

    assert not [name for name in state_of(admin.get("/"))["positions"] if name.startswith("device:")]


def test_the_overview_takes_at_most_twelve_queries_however_much_there_is(viewer):
    after_one_round()
    for number in range(12):
        runs.create_run(plan=_plan(f"run {number}"), created_by=None, now=NOW)
    fleet(8)

    with CaptureQueriesContext(connection) as captured:
        viewer.get("/")

    statements = [query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))]
    assert len(statements) <= 12, "\n".join(statements)


def _plan(name):
    return runs.RunPlan(name=name, task="linear")


def test_the_overview_shows_the_newest_open_run_and_another_one_on_request(viewer):
    older = started_run(name="older")
    done = started_run(name="done")
    runs.stop_run(run=done, now=NOW)

    assert state_of(viewer.get("/"))["run_id"] == older.pk
    assert state_of(viewer.get(f"/?run={done.pk}"))["run_id"] == done.pk
    assert viewer.get("/?run=999").status_code == 404


def test_no_page_has_a_style_or_script_in_its_markup(admin):
    run = after_one_round()
    addresses = ["/", reverse("run", args=[run.pk]), *map(reverse, READ_PAGES + WRITE_PAGES), "/login/", "/sign-in/"]

    for address in addresses:
        finder = InlineFinder()
        finder.feed(admin.get(address).content.decode())
        assert finder.found == [], address


class InlineFinder(HTMLParser):
    """Collects what a strict Content-Security-Policy would block, and what comes from another host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.found += [(tag, name) for name in named if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in named and named.get("type") != "application/json"):
            self.found.append((tag, "inline"))
        fetched = [named.get(name) or "" for name in ("src", "href", "action") if tag != "a"]
        self.found += [(tag, address) for address in fetched if "//" in address]


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "command", "after"),
    [
        (RunState.PENDING, "start", RunState.RUNNING),
        (RunState.RUNNING, "pause", RunState.PAUSED),
        (RunState.PAUSED, "resume", RunState.RUNNING),
    ],
)
def test_a_command_by_form_moves_the_run_and_goes_back(operator, before, command, after):
    run = runs.create_run(plan=_plan("a run"), created_by=None, now=NOW)
    if before != RunState.PENDING:
        runs.start_run(run=run, now=NOW)
    if before == RunState.PAUSED:
        runs.pause_run(run=run, now=NOW)

    response = operator.post(reverse("command-run", args=[run.pk, command]), {"next": "/?run=1"})

    run.refresh_from_db()
    assert run.state == after
    assert response.url == "/?run=1"


def test_a_command_that_cannot_be_says_why(operator):
    run = runs.create_run(plan=_plan("a run"), created_by=None, now=NOW)

    page = operator.post(reverse("command-run", args=[run.pk, "pause"]), follow=True)

    assert f"Run {run.label} is pending and cannot become paused." in text_of(page)


def test_nobody_is_sent_to_another_host_after_a_command(operator):
    run = runs.create_run(plan=_plan("a run"), created_by=None, now=NOW)

    response = operator.post(reverse("command-run", args=[run.pk, "start"]), {"next": "https://example.org/"})

    assert response.url == reverse("run", args=[run.pk])


def test_stopping_asks_when_and_does_that(operator):
    first, _ = fleet(2)
    run = started_run()
    step(run)

    asked = text_of(operator.get(reverse("stop-run", args=[run.pk])))
    operator.post(reverse("stop-run", args=[run.pk]), {"when": "after-round"})
    run.refresh_from_db()
    waits = (run.state, run.stop_after_round)
    operator.post(reverse("stop-run", args=[run.pk]), {"when": "now"})

    run.refresh_from_db()
    assert "After this round" in asked
    assert waits == (RunState.RUNNING, True)
    assert run.state == RunState.STOPPED
    assert first.assignment().state == "cancelled"


def test_the_list_of_runs_filters_and_turns_pages(viewer):
    for number in range(27):
        runs.create_run(plan=_plan(f"run-{number:02d}"), created_by=None, now=NOW)
    stopped = started_run(name="the stopped one")
    runs.stop_run(run=stopped, now=NOW)

    assert "run-02" not in text_of(viewer.get("/runs/"))
    assert "run-02" in text_of(viewer.get("/runs/?page=2"))
    filtered = text_of(viewer.get("/runs/?state=stopped"))
    assert "the stopped one" in filtered
    assert "run-26" not in filtered


def form_values(**changes):
    """Return what the form of a new run posts when only a name was typed."""
    values = {
        "name": "winter",
        "task": "linear",
        "strategy": "fedavg",
        "rounds": 3,
        "cohort_size": 2,
        "cohort_wait_seconds": 30,
        "deadline_seconds": 600,
        "min_examples": 1,
        "seed": 5,
    }
    return {**values, **changes}


def test_a_new_run_takes_the_tasks_own_settings_where_the_form_is_empty(operator):
    response = operator.post(reverse("new-run"), form_values(start="on"))

    run = Run.objects.get()
    assert response.url == reverse("run", args=[run.pk])
    assert (run.name, run.quorum, run.seed, run.state) == ("winter", 2, 5, RunState.RUNNING)
    assert run.local_epochs >= 1


def test_a_new_run_takes_the_parameters_of_its_own_strategy_alone(operator):
    operator.post(
        reverse("new-run"), form_values(strategy="fedprox", **{"fedprox-mu": "0.25", "fedavgm-momentum": "0.5"})
    )

    run = Run.objects.get()
    assert run.strategy_config["mu"] == 0.25
    assert set(run.strategy_config) == {"mu"}
    assert run.state == RunState.PENDING


def test_a_run_that_cannot_be_is_refused_with_the_reason(operator):
    page = operator.post(reverse("new-run"), form_values(quorum=5))

    assert "A quorum of 5 can never be met by a cohort of 2. Lower the quorum or raise cohort_size." in text_of(page)
    assert not Run.objects.exists()


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_shown_once_with_the_command_to_copy(operator):
    answer = operator.post(reverse("enroll-device"), {"label": "clinic", "lifetime": "900"})
    again = operator.get(reverse("enroll-device"))

    token = EnrollmentToken.objects.get()
    command = re.search(r'id="enroll-command">([^<]+)<', answer.content.decode())[1]
    shown = re.search(r"--token (\S+)", command)[1]
    assert parse_token(shown).id == token.token_id
    assert command.startswith("qflare-edge enroll http://testserver --token ")
    assert "no-store" in answer.headers["Cache-Control"]
    assert token.expires_at - token.created_at == timedelta(minutes=15)
    assert parse_token(shown).secret not in again.content.decode()
    assert token.token_id in text_of(again)


def test_a_device_that_waits_is_approved_by_a_button(operator):
    waiting = participant("clinic", auto_approve=False).device

    page = text_of(operator.get(reverse("enroll-device")))
    operator.post(reverse("command-device", args=[waiting.pk, "approve"]))

    waiting.refresh_from_db()
    assert "Approve clinic" in page
    assert waiting.state == DeviceState.ACTIVE


def test_operators_suspend_and_reinstate_and_only_admins_revoke(operator):
    device = participant("clinic").device

    operator.post(reverse("command-device", args=[device.pk, "suspend"]))
    device.refresh_from_db()
    suspended = device.state
    operator.post(reverse("command-device", args=[device.pk, "reinstate"]))
    refused = operator.post(reverse("command-device", args=[device.pk, "revoke"]))

    device.refresh_from_db()
    assert suspended == DeviceState.SUSPENDED
    assert refused.status_code == 403
    assert device.state == DeviceState.ACTIVE
    assert "Revoke" not in text_of(operator.get(reverse("device-list")))


def test_an_admin_revokes_a_device(admin):
    device = participant("clinic").device

    admin.post(reverse("command-device", args=[device.pk, "revoke"]))

    assert Device.objects.get(pk=device.pk).state == DeviceState.REVOKED


def test_a_devices_state_is_told_in_words(viewer):
    participant("here").connect()
    participant("away")
    suspended = participant("barred")
    devices.suspend(device=suspended.device, reason="too noisy", now=NOW, by=None)

    page = text_of(viewer.get(reverse("device-list")))

    assert re.search(r"away .*?Offline", page)
    assert re.search(r"barred .*?Suspended", page)
    assert re.search(r"here .*?Online", page)


# ── signing in ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_code_is_exchanged_for_a_session_by_post_once(client):
    user = person("demo", "admin")
    code = people.issue_sign_in_code(user=user, now=_clock())

    first = client.post(reverse("sign-in"), {"code": code})
    signed_in = client.get("/").status_code
    client.logout()
    second = client.post(reverse("sign-in"), {"code": code})

    assert first.url == "/"
    assert signed_in == 200
    assert second.status_code == 403
    assert "This sign-in link is not valid." in text_of(second)
    assert client.get("/").status_code == 302


def test_a_code_in_an_address_signs_nobody_in(client):
    code = people.issue_sign_in_code(user=person("demo", "admin"), now=_clock())

    client.get(reverse("sign-in"), {"code": code})

    assert client.get("/").status_code == 302


def test_signing_in_by_code_needs_the_pages_own_token(client):
    client.handler.enforce_csrf_checks = True
    code = people.issue_sign_in_code(user=person("demo", "admin"), now=_clock())

    assert client.post(reverse("sign-in"), {"code": code}).status_code == 403
    assert client.get("/").status_code == 302


def test_a_password_signs_in_and_leads_back(client):
    person("vera", "viewer")

    response = client.post(
        "/login/?next=/devices/", {"username": "vera", "password": "correct horse battery staple", "next": "/devices/"}
    )

    assert response.url == "/devices/"


def test_signing_out_is_a_post(viewer):
    assert viewer.get(reverse("logout")).status_code == 405
    viewer.post(reverse("logout"))

    assert viewer.get("/").status_code == 302


def _clock():
    from django.utils import timezone

    return timezone.now()


def test_the_feed_tells_each_change_of_a_run_once(viewer):
    run = after_one_round()

    told = state_of(viewer.get("/"))["told"]

    titles = [line["title"] for line in told if line["stream"] == run.stream]
    assert titles.count("Round 1 started") == 1
    assert Event.objects.filter(stream=run.stream, event="fl_status_update").count() > len(titles) / 2


def test_the_admin_has_the_same_colours(client):
    assert "css/admin.css" in client.get("/admin/login/").content.decode()
