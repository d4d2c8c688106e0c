"""The trash: what goes there is nowhere else and comes back whole; what is protected or open stays; time deletes."""

from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.db import IntegrityError, models, transaction

from edge.protocol.server import ErrorNotification
from fl import broadcasts, events, runs, signals, sweeping, trash
from fl.exceptions import Conflict, InTrash, NotFound
from fl.models import Assignment, ErrorGroup, Event, GlobalModel, Round, Run, Stream, Update
from fl.models.audit import Act
from fl.notifications import notify, tell_counted
from fl.queries import events as event_queries
from fl.queries.compare import comparison
from fl.queries.counts import runs_by_state
from fl.queries.device_list import Wish, device_list
from fl.queries.device_page import device_view
from fl.queries.run_list import Wishes, run_list
from fl.queries.runs import overview, visible_run
from fl.queries.trash import chosen_runs, run_in_trash, trash_page
from fl.roles import Role
from fl.snapshots import snapshot_for
from fl.visibility import (
    ANYONE,
    Principal,
    models_for,
    principal_of_device,
    runs_for,
    streams_for,
    trash_for,
)
from tests.builders import NOW, PLAN, at, current_round, fleet, person, started_run, step
from tests.fl.noted import noted, noted_of

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)
OF_A_RUN = (Run, Round, GlobalModel, Assignment, Update, Stream, Event)


@pytest.fixture
def senders():
    return fleet(2)


@pytest.fixture
def ended(senders):
    """Make a run that has ended after its one round, with all files that a run can have."""

    def make(name="a run", **changes):
        run = started_run(name=name, strategy="fedadam", keep_updates=True, rounds=1, **changes)
        step(run)
        for sender in senders:
            sender.send()
        while run.ended_at is None:
            step(run)
            run.refresh_from_db()
        return run

    return make


def thrown(run, now=NOW):
    return trash.move_to_trash(run=run, now=now)


def told_of_trash():
    rows = Event.objects.filter(stream="system", event="run_trash").order_by("seq")
    return [row.data for row in rows]


def files_of(run):
    names = {name for row in run.models.values_list("file", "strategy_state_file") for name in row}
    names |= set(Update.objects.filter(assignment__round__run=run).values_list("file", flat=True))
    return {name for name in names if name}


def stored(names):
    return {name for name in names if default_storage.exists(name)}


def rows_there():
    return {model: set(model.objects.values_list("pk", flat=True)) for model in OF_A_RUN}


# ── there and back ────────────────────────────────────────────────────────────────────────────────────────────────────


def everywhere(*numbers):
    """Return which runs, of these numbers, each reading shows."""
    return {
        "runs": {run.pk for run in runs_for(VIEWER)},
        "runs of everybody": {run.pk for run in runs_for(ANYONE)},
        "streams": {int(name[4:]) for name in streams_for(VIEWER).values_list("name", flat=True) if name[:4] == "run:"},
        "list": {row.run.pk for row in run_list(VIEWER, Wishes(), now=NOW).rows},
        "newest": {run_list(VIEWER, Wishes(), now=NOW).newest},
        "overview": {run.pk for run in overview(VIEWER).recent},
        "compared": {each.run.pk for each in comparison(VIEWER, map(str, numbers)).runs},
        "offered to compare": {run.pk for run in comparison(VIEWER, []).others},
        "snapshot": {status.run_id for status in snapshot_for(VIEWER).runs},
        "models": {model.run_id for model in snapshot_for(VIEWER).models},
        "events' form": set(
            event_queries.page_of_events(VIEWER, event_queries.EventFilter(), event_queries.Place()).runs
        ),
    }


def test_a_run_in_the_trash_is_nowhere_but_there_and_comes_back_as_it_was(ended):
    kept, run = ended("kept", public=True), ended("run", public=True)
    before, rows = everywhere(kept.pk, run.pk), rows_there()

    thrown(run)

    assert everywhere(kept.pk, run.pk) == {place: {kept.pk} for place in before}
    assert [row.run for row in trash_page(VIEWER).runs] == [run]
    with pytest.raises(InTrash):
        visible_run(VIEWER, run.pk)

    trash.restore_run(run=run, now=at(1))

    assert everywhere(kept.pk, run.pk) == before
    assert trash_page(VIEWER).total == 0
    rows.pop(Event)  # there are more of them
    assert {model: set(model.objects.values_list("pk", flat=True)) for model in rows} == rows
    assert before["runs"] == {kept.pk, run.pk}


def test_what_happens_to_a_run_in_the_trash_is_told_and_noted(ended):
    run, ada = ended("winter"), person("ada", "admin")

    trash.move_to_trash(run=run, now=NOW, by=ada)
    trash.restore_run(run=run, now=at(1), by=ada)

    assert told_of_trash() == [
        f'{{"run_id":{run.pk},"run_name":"winter","state":"{state}"}}' for state in ("in_trash", "restored")
    ]
    assert noted() == [(act, "ada", str(run), None, "command") for act in (Act.RUN_TRASH.value, Act.RUN_RESTORE.value)]


def test_who_could_not_see_a_run_is_not_told_that_it_is_in_the_trash(ended):
    run = thrown(ended())

    with pytest.raises(NotFound) as refused:
        visible_run(ANYONE, run.pk)

    assert not isinstance(refused.value, InTrash)
    assert list(trash_for(ANYONE)) == []


def test_a_device_gets_no_weights_of_a_run_in_the_trash(ended, senders):
    run = ended()
    device = senders[0].device
    before = set(models_for(device))

    thrown(run)

    assert before == set(run.models.filter(published_at__isnull=False)) != set()
    assert set(models_for(device)) == set()
    assert not principal_of_device(device).sees(run.stream, task=run.task, in_trash=True)


def test_devices_leave_out_rounds_of_runs_in_the_trash(ended, senders):
    ended("kept")
    run = ended("run")
    pk = senders[0].device.pk

    def shown():
        view = device_view(VIEWER, pk, hours=24, page=1, now=at(9))
        listed = {line.status.device_id: line.rounds for line in device_list(VIEWER, Wish(), at(9)).lines}
        return view.total_rounds, [part.run_name for part in view.rounds], listed[pk]

    before = shown()
    thrown(run)

    assert before == (2, ["run", "kept"], 2)
    assert shown() == (1, ["kept"], 1)


def test_runs_in_the_trash_are_not_counted(ended):
    run = ended()
    assert runs_by_state()["completed"] == 1

    thrown(run)

    assert runs_by_state()["completed"] == 0


def test_nothing_is_published_to_a_run_in_the_trash(ended):
    run = thrown(ended())

    with pytest.raises(NotFound):
        broadcasts.broadcast_fl_status_update({}, run_id=run.pk)


def test_an_event_of_a_run_in_the_trash_says_that_nobody_may_see_it(ended, django_capture_on_commit_callbacks):
    run = thrown(ended())
    told = []

    def hear(recorded, **_):
        told.append((recorded.stream, recorded.in_trash))

    signals.event_recorded.connect(hear)
    try:
        with django_capture_on_commit_callbacks(execute=True), events.transaction():
            for stream in (run.stream, events.SYSTEM):
                events.record(stream, ErrorNotification(code="x", title="late"), NOW)
    finally:
        signals.event_recorded.disconnect(hear)

    assert told == [(run.stream, True), (events.SYSTEM, False)]


def test_an_update_that_comes_for_a_run_in_the_trash_is_late_as_always(senders):
    run = started_run()
    step(run)
    runs.stop_run(run=run, now=at(1))
    thrown(run)

    assert senders[0].send(now=at(2)).state == "late"


# ── what stays ────────────────────────────────────────────────────────────────────────────────────────────────────────


def open_run(state):
    run = runs.create_run(plan=PLAN, created_by=None, now=NOW)
    if state != "pending":
        runs.start_run(run=run, now=NOW)
    if state == "paused":
        runs.pause_run(run=run, now=NOW)
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("state", ["pending", "running", "paused"])
def test_a_run_that_has_not_ended_stays_and_one_is_told_to_stop_it(state):
    run = open_run(state)

    with pytest.raises(Conflict) as refused:
        thrown(run)

    assert (refused.value.reason_code, refused.value.action) == ("run_is_open", "stop it first")
    assert state in refused.value.message
    run.refresh_from_db()
    assert (run.state, run.deleted_at) == (state, None)
    assert told_of_trash() == []


def test_a_protected_run_stays_until_its_protection_ends(ended):
    run, ada = ended(), person("ada", "admin")
    trash.protect_run(run=run, now=NOW, by=ada)

    with pytest.raises(Conflict) as refused:
        thrown(run)
    trash.unprotect_run(run=run, now=at(1), by=ada)
    thrown(run)

    assert refused.value.reason_code == "run_is_protected"
    assert [act for act, *_ in noted()] == [Act.RUN_PROTECT, Act.RUN_UNPROTECT]
    assert list(trash_for(VIEWER)) == [run]


def test_an_open_run_can_be_protected_beforehand_and_twice_is_once():
    run, ada = open_run("running"), person("ada", "admin")

    for _ in range(2):
        trash.protect_run(run=run, now=NOW, by=ada)

    run.refresh_from_db()
    assert run.is_protected
    assert len(noted_of(Act.RUN_PROTECT)) == 1


def test_what_is_not_there_can_neither_be_moved_nor_restored_nor_protected(ended):
    run = ended()

    with pytest.raises(NotFound):
        trash.restore_run(run=run, now=NOW)
    thrown(run)
    for use_case in (trash.move_to_trash, trash.protect_run, trash.unprotect_run):
        with pytest.raises(NotFound):
            use_case(run=run, now=at(1))
    with pytest.raises(NotFound):
        run_in_trash(VIEWER, run.pk + 1)


@pytest.mark.parametrize("changes", [{"is_protected": True}, {"state": "running", "ended_at": None}])
def test_the_database_itself_keeps_what_is_open_or_protected_out_of_the_trash(ended, changes):
    run = ended()

    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(deleted_at=NOW, **changes)


def test_chosen_runs_are_those_that_are_there(ended):
    first, second = ended("first"), ended("second")
    thrown(second)

    assert chosen_runs(VIEWER, [second.pk, first.pk, 99]) == [first]


# ── for good ──────────────────────────────────────────────────────────────────────────────────────────────────────────


DAYS = timedelta(days=1)


@pytest.fixture(autouse=True)
def thirty_days(settings):
    settings.QFLARE_TRASH_DAYS = 30
    settings.QFLARE_SWEEP_SECONDS = 3600


def test_when_its_time_is_over_a_run_goes_with_its_files_and_events_and_nothing_of_others(ended):
    kept = ended("kept", seed=1)
    others, kept_files = rows_there(), files_of(kept)
    run = ended("run", seed=2)
    own_files = files_of(run) - kept_files
    thrown(run)

    swept = sweeping.sweep(now=NOW + 30 * DAYS)

    assert len(own_files) >= 5
    assert set(swept) == own_files
    assert stored(own_files | kept_files) == kept_files
    left = rows_there()
    for model in (Run, Round, GlobalModel, Assignment, Update):
        assert left[model] == others[model], model
    assert not Stream.objects.filter(name=run.stream).exists()
    assert not Event.objects.filter(stream=run.stream).exists()
    assert others[Event] <= left[Event]


def test_a_file_that_another_run_names_too_stays(ended):
    kept, run = ended("kept", seed=7), ended("run", seed=7)
    shared = files_of(kept) & files_of(run)
    thrown(run)

    sweeping.sweep(now=NOW + 30 * DAYS)

    assert shared
    assert stored(files_of(kept)) == files_of(kept)


def test_before_its_time_and_once_restored_a_run_stays(ended):
    run = ended()
    thrown(run)

    assert trash.purge(now=NOW + 30 * DAYS - timedelta(seconds=1)) == 0
    trash.restore_run(run=run, now=NOW + 29 * DAYS)
    assert trash.purge(now=NOW + 400 * DAYS) == 0

    assert Run.objects.filter(pk=run.pk).exists()
    assert stored(files_of(run)) == files_of(run)


def test_much_goes_in_turns_the_oldest_first(ended, monkeypatch):
    monkeypatch.setattr(trash, "PURGED_IN_A_TURN", 2)
    made = [ended(str(number)) for number in range(3)]
    for moment, run in enumerate(made):
        thrown(run, now=at(moment))

    turns = [trash.purge(now=NOW + 31 * DAYS) for _ in range(3)]

    assert turns == [2, 1, 0]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("steps", range(8))
def test_whoever_dies_while_a_run_goes_leaves_it_whole_and_the_next_one_finishes(ended, monkeypatch, steps):
    run = ended()
    thrown(run)
    before, delete, done = rows_there(), models.QuerySet._raw_delete, []

    def dying(self, using):
        if len(done) == steps:
            raise Killed
        done.append(self.model)
        return delete(self, using)

    with monkeypatch.context() as patched:
        patched.setattr(models.QuerySet, "_raw_delete", dying)
        with pytest.raises(Killed):
            trash.purge(now=NOW + 30 * DAYS)

    assert rows_there() == before
    assert stored(files_of(run)) == files_of(run)
    assert trash.purge(now=NOW + 30 * DAYS) == 1
    assert not Run.objects.exists()


def test_whoever_dies_before_the_files_go_leaves_them_to_the_next_sweep(ended):
    run = ended()
    names = files_of(run)
    thrown(run)
    trash.purge(now=NOW + 30 * DAYS)
    assert stored(names) == names

    sweeping.sweep(now=NOW + 30 * DAYS)

    assert stored(names) == set()


def test_errors_that_are_still_to_be_told_do_not_bring_its_stream_back(ended, settings):
    settings.QFLARE_EQUAL_ERRORS_SECONDS = 10
    run = ended()
    with events.transaction():
        for _ in range(3):
            notify(run.stream, ErrorNotification(code="x", title="again", run_id=run.pk), NOW)
    thrown(run)

    trash.purge(now=NOW + 30 * DAYS)
    tell_counted(now=NOW + 30 * DAYS)

    assert not ErrorGroup.objects.filter(stream=run.stream).exists()
    assert not Stream.objects.filter(name=run.stream).exists()


def test_what_the_server_and_the_audit_log_say_of_it_stays(ended):
    run, ada = ended("winter"), person("ada", "admin")
    trash.move_to_trash(run=run, now=NOW, by=ada)

    trash.purge(now=NOW + 30 * DAYS)

    assert len(told_of_trash()) == 1
    assert [subject for _, _, subject, _, _ in noted_of(Act.RUN_TRASH)] == [str(run)]


def test_other_runs_go_on_while_one_goes(senders):
    run = started_run(name="old")
    runs.stop_run(run=run, now=NOW)
    thrown(run)
    going = started_run(name="new")
    step(going)

    trash.purge(now=NOW + 30 * DAYS)
    for sender in senders:
        sender.send()

    assert current_round(going).assignments.filter(state="accepted").count() == 2


def test_the_trash_says_when_each_run_goes(ended, settings):
    settings.QFLARE_TRASH_DAYS = 7
    first, second = ended("first"), ended("second")
    thrown(first, now=at(0))
    thrown(second, now=at(60))

    page = trash_page(VIEWER)

    assert [(row.run, row.goes_at) for row in page.runs] == [(second, at(60) + 7 * DAYS), (first, at(0) + 7 * DAYS)]
