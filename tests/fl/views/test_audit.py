"""The page of the audit log, its files, and that what is done by forms is in it."""

import asyncio
import csv
import io
import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fl import runs
from fl.models import AuditEntry, Run
from fl.models.audit import Act, Door
from fl.queries import audit as queries
from fl.views import export
from tests.asgi import Asking, body
from tests.builders import NOW, at, participant, person, started_run
from tests.fl.noted import noted
from tests.fl.views.answers import plan_named, text_of
from tests.fl.views.test_doors import InlineFinder

pytestmark = pytest.mark.django_db

PAGE = "/audit/"
HERE = "192.0.2.7"


def post(client, name, *arguments, **data):
    return client.post(reverse(name, args=arguments), data, REMOTE_ADDR=HERE)


def entry(subject="r-0001 winter", **changes):
    values = {"at": NOW, "person_name": "omar", "act": Act.RUN_PAUSE, "door": Door.PAGE, "address": HERE, **changes}
    return AuditEntry.objects.create(subject=subject, **values)


# ── what is done by forms ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_to_runs_by_forms_is_noted_once_each(operator):
    run = runs.create_run(plan=plan_named("winter"), created_by=None, now=NOW)

    for command in ("start", "pause", "resume"):
        post(operator, "command-run", run.pk, command)
    post(operator, "stop-run", run.pk, when="now")

    assert noted() == [
        (f"run.{command}", "omar", f"{run.label} winter", HERE, "page")
        for command in ("start", "pause", "resume", "stop")
    ]


def test_a_demo_is_noted_as_created_and_started(operator):
    participant("clinic", task="digits").connect()

    post(operator, "start-demo")

    subject = str(Run.objects.get())
    assert noted() == [
        ("run.create", "omar", subject, HERE, "page"),
        ("run.start", "omar", subject, HERE, "page"),
    ]


def test_what_is_done_to_devices_by_forms_is_noted_once_each(admin):
    device = participant("clinic", auto_approve=False).device

    post(admin, "enroll-device", label="gateway", lifetime="900")
    for command in ("approve", "suspend", "reinstate", "revoke"):
        post(admin, "command-device", device.pk, command)

    assert noted() == [
        ("token.issue", "ada", "gateway", HERE, "page"),
        ("device.approve", "ada", "clinic", HERE, "page"),
        ("device.suspend", "ada", "clinic", HERE, "page"),
        ("device.reinstate", "ada", "clinic", HERE, "page"),
        ("device.revoke", "ada", "clinic", HERE, "page"),
    ]


def test_a_form_that_is_refused_notes_nothing(operator):
    run = started_run()
    device = participant().device

    post(operator, "command-run", run.pk, "resume")
    post(operator, "command-device", device.pk, "approve")
    post(operator, "command-device", device.pk, "revoke")
    post(operator, "start-demo")
    post(operator, "enroll-device", label="gateway", lifetime="7")

    assert noted() == []


# ── who reads it ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("query", ["", "?format=csv", "?format=json"])
@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_only_admins_read_it(client, role, query):
    client.force_login(person("eve", role))

    assert client.get(PAGE + query).status_code == 403


@pytest.mark.parametrize("is_public", [False, True])
@pytest.mark.parametrize("query", ["", "?format=csv"])
def test_nobody_in_particular_is_sent_to_the_login(client, settings, is_public, query):
    settings.QFLARE_PUBLIC_DASHBOARD = is_public

    assert client.get(PAGE + query).url.startswith("/login/?next=/audit/")


def test_the_link_to_it_is_there_for_admins_alone(client):
    links = []
    for role in ("operator", "admin"):
        client.force_login(person(role, role))
        links.append(f'href="{PAGE}"' in client.get("/").content.decode())

    assert links == [False, True]


# ── what it shows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_who_did_what_to_what_from_where(admin):
    run = started_run(name="winter")
    entry(str(run), subject_kind="run", subject_id=str(run.pk), act=Act.RUN_STOP, detail="after this round")
    entry("eve", person_name="", act=Act.PERSON_SIGN_IN_FAILED, address=None)

    page = admin.get(PAGE)

    text = text_of(page)
    assert f"omar Stopped a run {run.label} winter after this round {HERE} by a page" in text
    assert "not known Failed to sign in eve by a page" in text
    assert f'<a href="/runs/{run.pk}/">{run.label} winter</a>' in page.content.decode()
    assert text.index("sign in eve") < text.index("winter")


def test_what_was_noted_is_shown_as_text(admin):
    entry("<script>alert(1)</script>", detail="<b>bold</b>", person_name="<i>eve</i>")

    shown = admin.get(PAGE).content.decode()

    assert "<script>alert" not in shown
    assert "<b>bold" not in shown
    assert "<i>eve" not in shown


def test_it_has_no_style_or_script_in_its_markup(admin):
    entry()
    finder = InlineFinder()

    finder.feed(admin.get(PAGE).content.decode())

    assert finder.found == []


@pytest.mark.parametrize(
    ("query", "subjects"),
    [
        ("person=vera", ["summer"]),
        ("act=run.stop", ["summer"]),
        ("subject=INT", ["winter"]),
        ("from=2030-01-02", ["summer"]),
        ("from=2029-12-31&to=2030-01-01", ["winter"]),
        ("from=2030-01-01&to=2030-01-02", ["summer", "winter"]),
        ("person=omar&act=run.stop", []),
    ],
)
def test_filters_are_in_the_address_and_in_the_form(admin, query, subjects):
    entry("winter", at=at(0))
    entry("summer", at=at(86_399), person_name="vera", act=Act.RUN_STOP)

    page = admin.get(f"{PAGE}?{query}")

    assert [line.subject for line in page.context["found"].entries] == subjects
    for part in query.split("&"):
        name, value = part.split("=")
        shown = f'<option value="{value}" selected>' if name == "act" else f'name="{name}" '
        assert shown in page.content.decode()
        assert f'value="{value}"' in page.content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "act=nothing",
        "from=yesterday",
        "from=2030-02-31",
        "from=9999-12-31&to=9999-12-31",
        "to=0001-01-01",
        "page=0",
        "page=x",
        "page=99999999999999999999",
        "format=exe",
        "subject=%00&person=%00",
        "person=&act=&subject=&from=&to=",
    ],
)
def test_what_is_no_filter_is_passed_over(admin, query):
    entry("winter")

    page = admin.get(f"{PAGE}?{query}")

    assert page.status_code == 200
    assert "winter" in text_of(page)


def test_pages_are_turned_within_a_filter(admin):
    for number in range(51):
        entry(f"run {number:02d}")
    entry("another", act=Act.RUN_STOP)

    first = admin.get(f"{PAGE}?act=run.pause")
    second = admin.get(f"{PAGE}?act=run.pause&page=2")
    beyond = admin.get(f"{PAGE}?act=run.pause&page=3")

    assert 'href="?act=run.pause&amp;page=2"' in first.content.decode()
    assert "51 entries" in text_of(first)
    assert [line.subject for line in second.context["found"].entries] == ["run 00"]
    assert 'href="?act=run.pause&amp;page=1"' in second.content.decode()
    assert "There is no such page." in text_of(beyond)


def test_it_takes_as_many_queries_for_a_full_page_as_for_one_entry(admin):
    run = started_run()
    counts = []
    for number in (1, 60):
        for _ in range(number):
            entry(str(run), subject_kind="run", subject_id=str(run.pk), person=run.created_by)
        with CaptureQueriesContext(connection) as captured:
            admin.get(PAGE)
        counts.append(len(captured))

    assert counts[0] == counts[1] <= 12


# ── its files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_filtered_is_taken_away_whole(admin, monkeypatch):
    monkeypatch.setattr(queries, "EXPORTED_AT_ONCE", 20)
    for number in range(51):
        entry(f"run {number:02d}")
    entry("another", act=Act.RUN_STOP)

    as_json = json.loads(admin.get(f"{PAGE}?act=run.pause&format=json").getvalue())
    as_csv = admin.get(f"{PAGE}?act=run.pause&format=csv")
    lines = list(csv.DictReader(io.StringIO(as_csv.getvalue().decode(), newline="")))

    expected = [f"run {number:02d}" for number in reversed(range(51))]
    assert [row["subject"] for row in as_json] == expected
    assert [row["subject"] for row in lines] == expected
    assert tuple(lines[0]) == queries.COLUMNS
    assert as_csv.headers["Content-Disposition"].startswith('attachment; filename="qflare-audit-')
    assert "no-store" in as_csv.headers["Cache-Control"]


def test_a_file_of_nothing_is_a_file_too(admin):
    assert json.loads(admin.get(f"{PAGE}?subject=nothing&format=json").getvalue()) == []
    assert admin.get(f"{PAGE}?subject=nothing&format=csv").getvalue().decode() == ",".join(queries.COLUMNS) + "\r\n"


def test_a_formula_is_no_formula_in_a_file(admin):
    entry("=HYPERLINK(1)", person_name="@eve", detail="-1")

    (line,) = csv.DictReader(io.StringIO(admin.get(f"{PAGE}?subject=hyper&format=csv").getvalue().decode()))

    assert (line["subject"], line["person"], line["detail"]) == ("'=HYPERLINK(1)", "'@eve", "'-1")


class Download(Asking):
    """Asks for what comes in pieces, and does not leave before the last of them."""

    def __init__(self, path, query, cookie):
        super().__init__("GET", path, {"Host": "localhost", "Cookie": cookie}, body(b""))
        self._scope["query_string"] = query

    async def send(self, message):
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.leave()


@pytest.mark.django_db(transaction=True)
def test_a_server_sends_a_file_piece_by_piece(client, monkeypatch):
    monkeypatch.setattr(queries, "EXPORTED_AT_ONCE", 2)
    monkeypatch.setattr(export, "LINES_AT_ONCE", 2)
    for number in range(5):
        entry(f"run {number}")
    client.force_login(person("ada", "admin"))
    download = Download(PAGE, b"format=json&person=omar", f"sessionid={client.cookies['sessionid'].value}")

    answer = asyncio.run(download.answer())

    assert answer.status_code == 200
    assert [row["subject"] for row in answer.json()] == ["run 4", "run 3", "run 2", "run 1", "run 0"]
    assert len([message for message in download.sent if message.get("body")]) == 3
