"""The feed: every event that the log may hold reads to a person, and the pages' scripts say the same."""

import json
import subprocess
from pathlib import Path

import msgspec
import pytest
from django.utils import translation

from edge.protocol import server
from fl import feed
from fl.lifecycle import AssignmentState, DeviceState, RoundState, RunState
from fl.models import Event
from tests.services.programs import find_program

TELL = Path(__file__).parent.parent / "js" / "tell.mjs"

STATUS = {
    "run_id": 1,
    "run_name": "winter",
    "task": "digits",
    "strategy": "fedavg",
    "rounds": 1200,
    "round": 3,
    "cohort_size": 5,
    "quorum": 4,
    "selected": 5,
    "reason": "waiting for devices: 1 of 2 ready",
}
PROGRESS = {
    "run_id": 1,
    "round": 3,
    "device_name": "clinic",
    "num_examples": 2310,
    "metrics": {"loss": 0.51234, "accuracy": 0.93841},
    "reason": "no data",
    "updates_received": 5,
    "duration_seconds": 40.62,
}
MODEL = {
    "run_id": 1,
    "task": "digits",
    "round": 3,
    "strategy": "fedavg",
    "version": 3,
    "size_bytes": 19_520,
    "reason": "NaN",
}
DEVICE = {"device_id": 7, "name": "clinic", "reason": "too noisy", "edge_version": "0.1.0"}
ERROR = {"code": "x", "title": "Round 3 failed", "detail": "no quorum", "action": "Look at its devices."}
BROADCAST = {"message": "maintenance at noon", "sender": "ada", "audiences": ["dashboard"]}


def payloads():
    """Return an event of each kind in each state, and some in which something is missing."""
    yield from (
        server.FlStatusUpdate(**STATUS, state=run, round_state=state) for run in RunState for state in RoundState
    )
    yield server.FlStatusUpdate(**{**STATUS, "round": None, "reason": ""}, state="running", round_state=None)
    yield server.FlStatusUpdate(**{**STATUS, "reason": ""}, state="running", round_state="pending")
    phases = [*AssignmentState, "deadline_extended", "round_completed"]
    yield from (server.TrainingProgress(**PROGRESS, phase=phase) for phase in phases)
    yield server.TrainingProgress(run_id=1, round=3, phase="accepted", device_name="clinic")
    yield server.TrainingProgress(run_id=1, round=3, phase="round_completed", metrics={"accuracy": None, "loss": None})
    yield from (
        server.ModelAggregation(**MODEL, phase=phase) for phase in ("started", "progress", "completed", "failed")
    )
    yield from (
        server.DeviceStatus(**DEVICE, state=state, presence=presence)
        for state in DeviceState
        for presence in ("online", "offline")
    )
    yield from (server.ErrorNotification(**ERROR, severity=severity) for severity in ("info", "warning", "error"))
    yield from (server.RunTrash(run_id=1, run_name="winter", state=state) for state in ("in_trash", "restored"))
    yield from (server.Broadcast(**BROADCAST, level=level) for level in ("info", "warning", "error"))


NUMBERS = {
    "percent": [None, 0, 0.0003, 0.5, 0.93841, 1],
    "loss": [None, 0, 0.12344, 2.5, 123.456],
    "points": [None, 0, 0.0062, -0.012, -0.00001, 1],
    "change": [None, 0, 0.0074, -0.0031, -0.00001, 2.5],
    "seconds": [None, 0, 0.4216, 9.994, 10, 40.62, 59.94, 61, 125.4, 3599, 3780, 90_000],
    "int": [None, 0, 7, 999, 1000, 1_234_567],
    "bytes": [None, 0, 812, 1200, 19_520, 3_400_000, 1_920_000_000],
    "some": [None, 0, 3],
}


def logged(payload, seq):
    data = server.encode_payload(payload).decode()
    return Event(stream_id="run:1", seq=seq, event=payload.event, data=data, timestamp="2030-01-01T12:00:00Z")


def told_alone(payload):
    """Return what one event reads like, with nothing before it."""
    return feed.tell([logged(payload, 1)])


@pytest.fixture(scope="module", params=["en", "de"])
def language(request):
    return request.param


@pytest.fixture
def speaking(language):
    """This language is the reader's."""
    with translation.override(language):
        yield


@pytest.fixture(scope="module")
def in_the_browser(language):
    """What the pages' script says to the same events and numbers."""
    events = [{"event": payload.event, "data": json.loads(server.encode_payload(payload))} for payload in payloads()]
    with translation.override(language):
        given = json.dumps({"words": feed.vocabulary(), "events": events, "numbers": NUMBERS})
    node = find_program(["node"], "nodejs")
    done = subprocess.run([node, TELL], input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.usefixtures("speaking")
def test_the_scripts_tell_every_event_as_the_server_does(in_the_browser):
    here = []
    for payload in payloads():
        told = told_alone(payload)
        line = msgspec.to_builtins(told[0]) if told else None
        here.append(line and {name: line[name] for name in ("title", "detail", "tone", "icon", "count")})

    assert [each["line"] for each in in_the_browser["lines"]] == here


def test_the_scripts_take_for_news_what_the_server_does(in_the_browser):
    here = [feed.reading_of(payload.event, json.loads(server.encode_payload(payload))) for payload in payloads()]

    assert [each["reading"] and tuple(each["reading"]) for each in in_the_browser["lines"]] == here


@pytest.mark.usefixtures("speaking")
def test_the_scripts_write_numbers_as_the_server_does(in_the_browser):
    here = {name: [feed.FORMATS[name](value) for value in values] for name, values in NUMBERS.items()}

    assert in_the_browser["written"] == here


def test_numbers_are_written_with_their_unit():
    assert feed.percent(0.93841) == "93.84 %"
    assert feed.seconds(125.4) == "2 min 5 s"
    assert feed.size(19_520) == "19.5 kB"
    assert feed.integer(1_234_567) == "1,234,567"


def test_numbers_carry_the_marks_of_the_readers_language():
    with translation.override("de"):
        written = [feed.percent(0.93841), feed.loss(0.12344), feed.change(-0.0031), feed.seconds(9.994)]
        large = [feed.integer(1_234_567), feed.size(19_520), feed.plain(1e-05), feed.plain(0.25)]

    assert written == ["93,84 %", "0,1234", "−0,0031", "9,99 s"]
    assert large == ["1.234.567", "19,5 kB", "1e-05", "0,25"]


def test_a_detail_leaves_out_what_is_not_known():
    known = server.TrainingProgress(**PROGRESS, phase="accepted")
    unknown = server.TrainingProgress(run_id=1, round=3, phase="accepted", device_name="clinic")

    assert told_alone(known)[0].detail == "2,310 examples, local loss 0.5123, accuracy 93.84 %"
    assert told_alone(unknown)[0].detail == ""


def test_sentences_are_not_joined_by_commas():
    trouble = server.ErrorNotification(code="x", title="Late", detail="Events may be late.", action="See to Redis.")

    assert told_alone(trouble)[0].detail == "Events may be late. See to Redis."


def test_every_state_has_a_word_and_an_icon_of_the_sprite():
    sprite = (Path(feed.__file__).parent.parent / "static/vendor/lucide/sprite.svg").read_text()
    tables = [feed.RUN_WORDS, feed.ROUND_WORDS, feed.ASSIGNMENT_WORDS, feed.DEVICE_WORDS]
    icons = {word.icon for table in tables for word in table.values()}
    icons |= {line.icon for line in feed.LINES.values() if line}

    assert [set(RunState), set(RoundState), set(AssignmentState)] == [set(table) for table in tables[:3]]
    assert [icon for icon in icons if f'id="{icon}"' not in sprite] == []


def test_a_status_that_says_nothing_new_is_told_once():
    started = server.FlStatusUpdate(**STATUS, state="running", round_state="training")
    later = msgspec.structs.replace(started, updates_received=2)
    aggregating = msgspec.structs.replace(started, round_state="aggregating")

    told = feed.tell([logged(payload, seq) for seq, payload in enumerate((started, later, aggregating), start=1)])

    assert [line.title for line in told] == ["Round 3 started"]


def test_of_a_device_only_changes_of_presence_and_state_are_told():
    online = server.DeviceStatus(**DEVICE, state="active", presence="online")
    statuses = [
        online,
        msgspec.structs.replace(online, name="the clinic"),
        msgspec.structs.replace(online, device_id=8, name="another"),
        msgspec.structs.replace(online, edge_version="0.2.0"),
        msgspec.structs.replace(online, presence="offline", reason=""),
        msgspec.structs.replace(online, presence="offline", reason="", name="clinic"),
        online,
        msgspec.structs.replace(online, state="suspended"),
    ]

    told = feed.tell([logged(payload, seq) for seq, payload in enumerate(statuses, start=1)])

    assert [line.title for line in told[::-1]] == [
        "clinic is online",
        "another is online",
        "clinic is offline",
        "clinic is online",
        "clinic is suspended",
    ]


def test_it_is_told_by_how_much_a_deadline_was_extended_and_by_whom():
    extended = server.TrainingProgress(
        run_id=1, round=3, phase="deadline_extended", duration_seconds=60.0, reason="by ada"
    )

    (told,) = told_alone(extended)
    assert (told.title, told.detail) == ("Round 3: deadline extended by 1 min 0 s", "by ada")


def error(seq, **changes):
    return logged(server.ErrorNotification(**{**ERROR, "severity": "error", **changes}), seq)


def test_equal_troubles_that_follow_each_other_are_one_line_with_their_number():
    told = feed.tell([error(1), error(2, count=3), error(3, title="Another"), error(4)])

    assert [(line.title, line.seq, line.count) for line in told] == [
        ("Round 3 failed", 4, 1),
        ("Another", 3, 1),
        ("Round 3 failed", 2, 4),
    ]


def test_good_news_are_told_each_however_alike():
    news = server.ErrorNotification(**{**ERROR, "severity": "info"})

    assert [line.count for line in feed.tell([logged(news, 1), logged(news, 2)])] == [1, 1]
