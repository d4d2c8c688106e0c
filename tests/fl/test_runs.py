"""Runs: what could never work is refused with its reason; every command does in every state what the table says."""

import math
from dataclasses import replace

import msgspec
import pytest
from torch import nn

from edge.tasks import TASKS, DataSource, Examples, OwnLoopTask
from fl import runs
from fl.exceptions import Conflict, Invalid, InvalidRun, TaskUnavailable, WrongMove
from fl.lifecycle import RunState
from fl.models import Assignment, Event, Round, Run, Stream
from fl.rounds import newest_model, open_round_of
from fl.tasks import digest_of_task
from tests.builders import NOW, PLAN, at, current_round, fleet, person, started_run, step

pytestmark = pytest.mark.django_db


def create(**changes):
    return runs.create_run(plan=replace(PLAN, **changes), created_by=None, now=NOW)


def told(stream, event):
    rows = Event.objects.filter(stream=stream, event=event).order_by("seq")
    return [msgspec.json.decode(row.data) for row in rows]


# ── creation ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_run_waits_to_be_started_with_the_defaults_of_its_task_and_strategy():
    ada = person("ada", "operator")

    run = runs.create_run(plan=runs.RunPlan(name="n", task="linear", strategy="fedadam"), created_by=ada, now=at(1))

    run.refresh_from_db()
    defaults = TASKS["linear"].defaults
    assert (run.state, run.created_by, run.created_at, run.started_at) == ("pending", ada, at(1), None)
    assert (run.local_epochs, run.batch_size) == (defaults.local_epochs, defaults.batch_size)
    assert (run.learning_rate, run.momentum) == (defaults.learning_rate, defaults.momentum)
    assert run.quorum == run.cohort_size == 2
    assert run.strategy_config == {"eta": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 0.001}
    assert run.task_digest == digest_of_task("linear")


def test_a_new_run_has_a_stream_with_the_labels_that_decide_who_follows():
    run = create(public=True)

    stream = Stream.objects.get(pk=run.stream)
    assert (stream.task, stream.public, stream.head) == ("linear", True, 1)
    (status,) = told(run.stream, "fl_status_update")
    assert (status["state"], status["actions"]) == ("pending", ["start", "stop_now"])


IMPOSSIBLE = {
    "no name": ({"name": ""}, "name", "blank"),
    "a name that is too long": ({"name": "n" * 101}, "name", "100"),
    "no round": ({"rounds": 0}, "rounds", "at least 1"),
    "nobody in the cohort": ({"cohort_size": 0, "quorum": 0}, "cohort_size", "at least 1"),
    "no quorum": ({"quorum": 0}, "quorum", "at least 1"),
    "a quorum above the cohort": ({"quorum": 3}, "quorum", "never be met by a cohort of 2"),
    "no local epoch": ({"local_epochs": 0}, "local_epochs", "at least 1"),
    "no batch": ({"batch_size": 0}, "batch_size", "at least 1"),
    "no learning": ({"learning_rate": 0.0}, "learning_rate", "above 0"),
    "learning backwards": ({"learning_rate": -0.1}, "learning_rate", "above 0"),
    "a learning rate that is no number": ({"learning_rate": math.nan}, "learning_rate", "finite"),
    "an infinite learning rate": ({"learning_rate": math.inf}, "learning_rate", "finite"),
    "a momentum of 1": ({"momentum": 1.0}, "momentum", "[0, 1)"),
    "a momentum below 0": ({"momentum": -0.1}, "momentum", "[0, 1)"),
    "no time to train": ({"deadline_seconds": 0.0}, "deadline_seconds", "0.1"),
    "more time to train than there is": ({"deadline_seconds": 1e12}, "deadline_seconds", "at most"),
    "more patience than there is": ({"cohort_wait_seconds": 1e12}, "cohort_wait_seconds", "at most"),
    "negative patience": ({"cohort_wait_seconds": -1.0}, "cohort_wait_seconds", "0"),
    "fewer than no examples": ({"min_examples": -1}, "min_examples", "0"),
    "a negative norm": ({"max_update_norm": -1.0}, "max_update_norm", "0"),
    "a norm that is no number": ({"max_update_norm": math.nan}, "max_update_norm", "finite"),
    "a negative seed": ({"seed": -1}, "seed", "0"),
    "a seed that is too large": ({"seed": 2**62 + 1}, "seed", str(2**62)),
    "an unknown strategy": ({"strategy": "median"}, "strategy", "no strategy 'median'"),
    "an unknown parameter": ({"strategy_config": {"mu": 1.0}}, "strategy", "no parameter 'mu'"),
    "a parameter out of range": (
        {"strategy": "fedprox", "strategy_config": {"mu": -1.0}},
        "strategy",
        "must be a number from",
    ),
    "an unknown step": ({"steps": [{"name": "noise"}]}, "strategy", "no step 'noise'"),
    "a step with an unknown parameter": (
        {"steps": [{"name": "clip_norm", "config": {"length": 1.0}}]},
        "strategy",
        "no parameter 'length'",
    ),
}


@pytest.mark.parametrize(("changes", "field", "fact"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_run_that_could_never_work_is_refused_with_its_field_and_reason(changes, field, fact):
    with pytest.raises(InvalidRun) as refusal:
        create(**changes)

    assert refusal.value.field == field
    assert fact in refusal.value.message
    assert not Run.objects.exists()
    assert not Event.objects.exists()


def test_an_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(TaskUnavailable, match="linear") as refusal:
        create(task="alchemy")

    assert refusal.value.field == "task"


class OwnWay(OwnLoopTask):
    """Trains by a loop of its own that knows nothing of FedProx."""

    name = "own-way"

    def build_model(self):
        return nn.Linear(1, 1)

    def training_examples(self, source: DataSource) -> Examples:
        raise NotImplementedError

    def loss(self, model, batch):
        raise NotImplementedError

    def evaluate(self, model, examples):
        raise NotImplementedError

    def train(self, model, examples, settings, report):
        raise NotImplementedError


@pytest.fixture
def own_way():
    """A task that cannot do FedProx, known to the server while the test lasts."""
    TASKS[OwnWay.name] = OwnWay
    yield OwnWay.name
    del TASKS[OwnWay.name]


def test_a_run_that_needs_what_its_task_cannot_do_is_refused(own_way):
    with pytest.raises(InvalidRun, match="own-way cannot do what fedprox needs: proximal") as refusal:
        create(task=own_way, strategy="fedprox", strategy_config={"mu": 0.1})

    assert refusal.value.field == "strategy"
    assert create(task=own_way, strategy="fedavg").state == "pending"
    assert create(task=own_way, strategy="fedprox", strategy_config={"mu": 0.0}).state == "pending"


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────

COMMANDS = {
    "start": lambda run: runs.start_run(run=run, now=at(1)),
    "pause": lambda run: runs.pause_run(run=run, now=at(1)),
    "resume": lambda run: runs.resume_run(run=run, now=at(1)),
    "stop after round": lambda run: runs.stop_run(run=run, now=at(1), after_round=True),
    "stop now": lambda run: runs.stop_run(run=run, now=at(1)),
}
WANTED = {
    "start": "running",
    "pause": "paused",
    "resume": "running",
    "stop after round": "stopped",
    "stop now": "stopped",
}
ALLOWED = {
    ("pending", "start"): "running",
    ("pending", "stop after round"): "stopped",
    ("pending", "stop now"): "stopped",
    ("running", "pause"): "paused",
    ("running", "stop after round"): "stopped",
    ("running", "stop now"): "stopped",
    ("paused", "resume"): "running",
    ("paused", "stop after round"): "stopped",
    ("paused", "stop now"): "stopped",
}


def run_in(state):
    """Make a run in this state, without a round."""
    run = create()
    ended_at = NOW if state in ("completed", "failed", "stopped") else None
    Run.objects.filter(pk=run.pk).update(state=state, ended_at=ended_at)
    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", [state.value for state in RunState])
def test_a_command_moves_a_run_as_the_table_says_and_otherwise_says_from_where_to_where(state, command):
    run = run_in(state)
    told_before = len(told(run.stream, "fl_status_update"))

    if (state, command) in ALLOWED:
        moved = COMMANDS[command](run)
        assert moved.state == ALLOWED[state, command]
        assert told(run.stream, "fl_status_update")[-1]["state"] == moved.state
        assert (moved.ended_at is not None) == (moved.state == "stopped")
    else:
        with pytest.raises(WrongMove) as refusal:
            COMMANDS[command](run)
        assert (refusal.value.current, refusal.value.wanted) == (state, WANTED[command])
        run.refresh_from_db()
        assert run.state == state
        assert len(told(run.stream, "fl_status_update")) == told_before


def test_a_run_that_starts_keeps_when_and_resuming_does_not_change_it():
    run = create()

    runs.start_run(run=run, now=at(1))
    runs.pause_run(run=run, now=at(2))
    resumed = runs.resume_run(run=run, now=at(3))

    assert resumed.started_at == at(1)
    assert resumed.reason == ""


def test_who_paused_or_stopped_a_run_is_told():
    ada = person("ada", "operator")
    run = started_run()

    assert runs.pause_run(run=run, now=at(1), by=ada).reason == "paused by ada"
    assert runs.stop_run(run=run, now=at(2), by=ada).reason == "stopped by ada"
    assert Round.objects.get().reason == "the run was stopped by ada"


# ── pause and resume ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_open_round_of_a_paused_run_finishes_and_none_opens_until_it_resumes():
    senders = fleet(2)
    run = started_run(rounds=2)
    step(run)
    runs.pause_run(run=run, now=at(1))

    for sender in senders:
        assert sender.send().state == "accepted"
    step(run)

    run.refresh_from_db()
    assert (run.state, open_round_of(run), newest_model(run).version) == ("paused", None, 1)
    status = told(run.stream, "fl_status_update")[-1]
    assert (status["state"], status["round"], status["round_state"]) == ("paused", 1, "completed")
    assert (status["model_version"], status["updates_received"]) == (1, 2)

    runs.resume_run(run=run, now=at(9))

    assert current_round(run).number == 2


def test_a_paused_run_selects_nobody_and_says_so():
    run = started_run()
    runs.pause_run(run=run, now=at(1))
    fleet(2)

    assert not step(run, at(2))

    assert current_round(run).state == "pending"
    assert not Assignment.objects.exists()
    runs.resume_run(run=run, now=at(3))
    assert step(run, at(4))
    assert Assignment.objects.count() == 2


def test_the_last_round_of_a_paused_run_completes_it():
    senders = fleet(2)
    run = started_run(rounds=1)
    step(run)
    runs.pause_run(run=run, now=at(1))

    for sender in senders:
        sender.send()
    step(run)

    run.refresh_from_db()
    assert run.state == "completed"


# ── extending a deadline ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_extended_round_takes_the_update_that_would_have_come_too_late():
    early, late = fleet(2)
    run = started_run(rounds=1)
    step(run)
    early.send()

    runs.extend_round(run=run, seconds=30, now=at(59))

    assert not step(run, at(60))
    assert late.send(now=at(89)).state == "accepted"
    assert step(run, at(89))
    run.refresh_from_db()
    assert run.state == "completed"
    assert set(Assignment.objects.values_list("state", flat=True)) == {"accepted"}


def test_the_new_deadline_is_one_like_the_first():
    early, _ = fleet(2)
    run = started_run()
    step(run)
    early.send()

    runs.extend_round(run=run, seconds=30, now=at(1))
    runs.extend_round(run=run, seconds=0.5, now=at(2))

    assert not step(run, at(90))
    assert step(run, at(90.5))
    assert run.round_set.get(number=1).reason == "deadline passed with 1 of 2 updates"


def test_a_deadline_that_has_passed_unseen_is_extended_from_now_on():
    fleet(2)
    run = started_run()
    step(run)

    runs.extend_round(run=run, seconds=30, now=at(1000))

    assert current_round(run).deadline_at == at(1030)
    assert not step(run, at(1029))


def test_everybody_is_told_the_new_deadline_and_who_extended_it():
    ada = person("ada", "operator")
    fleet(2)
    run = started_run()
    step(run)

    runs.extend_round(run=run, seconds=30, now=at(1), by=ada)

    (extended,) = told(run.stream, "training_progress")
    assert (extended["phase"], extended["round"]) == ("deadline_extended", 1)
    assert (extended["duration_seconds"], extended["reason"]) == (30, "by ada")
    before, after = told(run.stream, "fl_status_update")[-2:]
    assert (before["deadline_at"], after["deadline_at"]) == ("2030-01-01T12:01:00Z", "2030-01-01T12:01:30Z")
    assert after["actions"] == ["pause", "extend_deadline", "stop_after_round", "stop_now"]


def test_the_open_round_of_a_paused_run_is_extended_too():
    fleet(2)
    run = started_run()
    step(run)
    runs.pause_run(run=run, now=at(1))

    runs.extend_round(run=run, seconds=30, now=at(2))

    assert current_round(run).deadline_at == at(90)


def before_it_has_devices():
    return started_run()


def after_its_last_round():
    senders = fleet(2)
    run = started_run(rounds=1)
    step(run)
    for sender in senders:
        sender.send()
    step(run)
    return run


def while_it_aggregates():
    fleet(2)
    run = started_run()
    step(run)
    Round.objects.update(state="aggregating")
    return run


@pytest.mark.parametrize("make", [create, before_it_has_devices, while_it_aggregates, after_its_last_round])
def test_only_a_round_that_is_training_is_extended(make):
    run = make()
    deadlines, heard = list(Round.objects.values_list("deadline_at")), Event.objects.count()

    with pytest.raises(Conflict, match=f"no round of run {run.label} is training"):
        runs.extend_round(run=run, seconds=30, now=at(1))

    assert list(Round.objects.values_list("deadline_at")) == deadlines
    assert Event.objects.count() == heard


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, runs.MAX_EXTENSION_SECONDS + 1])
def test_an_extension_is_some_time_and_at_most_a_day(seconds):
    fleet(2)
    run = started_run()
    step(run)

    with pytest.raises(Invalid, match="more than 0 s and at most 86400 s") as refusal:
        runs.extend_round(run=run, seconds=seconds, now=at(1))

    assert refusal.value.field == "seconds"
    assert current_round(run).deadline_at == at(60)


# ── stop ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stopping_after_the_round_lets_it_finish_and_opens_none():
    senders = fleet(2)
    run = started_run(rounds=5)
    step(run)

    stopping = runs.stop_run(run=run, now=at(1), after_round=True)
    assert (stopping.state, stopping.stop_after_round) == ("running", True)
    assert told(run.stream, "fl_status_update")[-1]["reason"] == "stopping after this round"
    for sender in senders:
        assert sender.send().state == "accepted"
    step(run)

    run.refresh_from_db()
    assert (run.state, run.reason) == ("stopped", "stopped after round 1")
    assert newest_model(run).version == 1
    assert list(run.round_set.values_list("state", flat=True)) == ["completed"]


def test_a_paused_run_can_be_stopped_after_its_round():
    senders = fleet(2)
    run = started_run(rounds=5)
    step(run)
    runs.pause_run(run=run, now=at(1))

    runs.stop_run(run=run, now=at(2), after_round=True)
    for sender in senders:
        sender.send()
    step(run)

    run.refresh_from_db()
    assert run.state == "stopped"


def test_stopping_after_a_round_that_has_not_begun_is_at_once():
    run = started_run()

    stopped = runs.stop_run(run=run, now=at(1), after_round=True)

    assert stopped.state == "stopped"
    assert Round.objects.get().state == "stopped"


def test_stopping_now_cancels_what_devices_are_doing_and_tells_them():
    idle, sender = fleet(2)
    run = started_run()
    step(run)
    sender.send()

    runs.stop_run(run=run, now=at(1))

    round_ = Round.objects.get()
    assert (round_.state, round_.ended_at, round_.reason) == ("stopped", at(1), "the run was stopped")
    assert (idle.assignment().state, idle.assignment().reason) == ("cancelled", "the run was stopped")
    assert sender.assignment().state == "accepted"
    cancel = told(idle.device.stream, "cancel")[-1]
    assert (cancel["assignment_id"], cancel["reason"]) == (idle.assignment().pk, "the run was stopped")
    assert told(sender.device.stream, "cancel") == []
    assert told(run.stream, "fl_status_update")[-1]["actions"] == []


def test_stopping_now_frees_the_devices_for_other_runs():
    fleet(2)
    run, other = started_run(), started_run(name="another")
    step(run)
    assert not step(other)

    runs.stop_run(run=run, now=at(1))

    assert step(other, at(1))


def test_a_run_that_has_ended_cannot_be_stopped_again():
    run = started_run()
    runs.stop_run(run=run, now=at(1))

    with pytest.raises(WrongMove):
        runs.stop_run(run=run, now=at(2), after_round=True)


# ── descriptions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_renamed_in_any_state_and_the_new_name_is_told():
    run = started_run()
    runs.stop_run(run=run, now=NOW)
    before = len(told(run.stream, "fl_status_update"))

    runs.describe_run(run=run, name=" winter ", now=at(1))

    run.refresh_from_db()
    assert run.name == "winter"
    assert [status["run_name"] for status in told(run.stream, "fl_status_update")[before:]] == ["winter"]


def test_tags_and_notes_change_without_a_word():
    run = create(name="n", tags=["old"], notes="old")
    before = len(told(run.stream, "fl_status_update"))

    runs.describe_run(run=run, tags=[" a  b ", "A B", "", "c"], notes=" new ", now=at(1))

    run.refresh_from_db()
    assert (run.name, run.tags, run.notes) == ("n", ["a b", "c"], "new")
    assert len(told(run.stream, "fl_status_update")) == before


def test_what_is_not_given_stays():
    run = create(name="n", tags=["t"], notes="why")

    runs.describe_run(run=run, now=at(1))

    run.refresh_from_db()
    assert (run.name, run.tags, run.notes) == ("n", ["t"], "why")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"tags": ["t" * 41]}, "tags"),
        ({"tags": ["a,b"]}, "tags"),
        ({"tags": [str(number) for number in range(11)]}, "tags"),
        ({"notes": "n" * 2001}, "notes"),
    ],
)
def test_a_description_that_cannot_be_changes_nothing(changes, field):
    run = create(name="n", tags=["t"], notes="why")

    with pytest.raises(Invalid) as refused:
        runs.describe_run(run=run, now=at(1), **{"name": "other", **changes})

    run.refresh_from_db()
    assert refused.value.field == field
    assert (run.name, run.tags, run.notes) == ("n", ["t"], "why")
