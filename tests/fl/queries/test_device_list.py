"""The list of devices: who is of which kind, found by which text, in which order, on which page."""

import pytest

from fl import assignments, devices
from fl.exceptions import UpdateRefused
from fl.queries.device_list import DEVICES_A_PAGE, Show, Sort, Wish, device_list
from fl.roles import Role
from fl.visibility import Principal
from tests.builders import NOW, at, crowd, participant, started_run, step

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)


def names(wish=None, now=NOW):
    return [line.status.name for line in device_list(VIEWER, wish or Wish(), now).lines]


def line_of(name, now=NOW):
    (line,) = (line for line in device_list(VIEWER, Wish(), now).lines if line.status.name == name)
    return line


@pytest.fixture
def zoo():
    """A device of each kind: five in a round, of which one has gone offline, one was rejected and one gave up."""
    made = {name: participant(name).connect() for name in ("busy", "lost", "rejected", "failed", "done")}
    run = started_run(cohort_size=5, quorum=1)
    step(run)
    made["done"].send(metrics={"loss": 0.5, "accuracy": 0.75})
    with pytest.raises(UpdateRefused):
        made["rejected"].send(data=b"no weights")
    failed = made["failed"]
    assignments.give_up(device=failed.device, assignment_id=failed.assignment().pk, reason="no data", now=NOW)
    devices.disconnected(connection_id=made["lost"].connection_id, now=NOW)
    devices.expire_leases(now=at(20))
    made["idle"] = participant("idle", task="digits").connect()
    made["away"] = participant("away")
    made["new"] = participant("new", auto_approve=False)
    made["barred"] = participant("barred")
    devices.suspend(device=made["barred"].device, reason="too noisy", now=NOW, by=None)
    made["gone"] = participant("gone")
    devices.revoke(device=made["gone"].device, reason="stolen", now=NOW, by=None)
    return made


KINDS = {
    Show.ALL: {"busy", "lost", "rejected", "failed", "done", "idle", "away", "new", "barred", "gone"},
    Show.ATTENTION: {"lost", "rejected", "failed", "new", "barred"},
    Show.TRAINING: {"busy"},
    Show.ONLINE: {"busy", "rejected", "failed", "done", "idle"},
    Show.OFFLINE: {"lost", "away"},
    Show.PENDING: {"new"},
    Show.REVOKED: {"gone"},
}


@pytest.mark.parametrize("show", Show)
def test_each_kind_has_the_devices_it_names_and_is_counted_truly(zoo, show):
    found = device_list(VIEWER, Wish(show=show), NOW)

    assert {line.status.name for line in found.lines} == KINDS[show]
    assert found.counts == {kind: len(members) for kind, members in KINDS.items()}


def test_why_a_device_stands_out_is_said_beside_it(zoo):
    said = {line.status.name: " ".join(line.attention) for line in device_list(VIEWER, Wish(), NOW).lines}

    assert said["lost"] == "went offline with its part of round 1 still to do"
    assert said["rejected"].startswith("its last update was rejected: ")
    assert said["failed"] == "it could not train when last asked: no data"
    assert said["new"] == "waits for approval"
    assert said["barred"] == "suspended: too noisy"
    assert not any(said[name] for name in ("busy", "done", "idle", "away", "gone"))


def test_an_update_that_is_accepted_makes_a_device_well_again(zoo):
    run = started_run(cohort_size=1, name="second chance")
    device = zoo["rejected"]
    for other in ("busy", "done", "failed"):
        devices.suspend(device=zoo[other].device, reason="", now=NOW, by=None)
    step(run)
    assert line_of("rejected").attention

    device.send()

    assert line_of("rejected").attention == ()


def test_the_last_accuracy_is_that_of_the_newest_accepted_update_where_it_was_reported(zoo):
    accuracies = {line.status.name: line.accuracy for line in device_list(VIEWER, Wish(), NOW).lines}

    assert accuracies.pop("done") == 0.75
    assert set(accuracies.values()) == {None}


def test_rounds_count_each_round_that_a_device_was_selected_for(zoo):
    rounds = {line.status.name: line.rounds for line in device_list(VIEWER, Wish(), NOW).lines}

    assert {name for name, count in rounds.items() if count == 1} == {"busy", "lost", "rejected", "failed", "done"}
    assert rounds["idle"] == 0


def test_the_work_at_hand_is_told_with_its_progress(zoo):
    work = line_of("busy").work

    assert (work.round, work.phase, work.progress) == (1, "assigned", 0.0)
    assert line_of("idle").work is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("BUS", ["busy"]), ("digits", ["idle"]), ("0.1.0", ["busy", "done", "failed", "idle", "lost", "rejected"])],
)
def test_a_text_is_found_in_name_task_and_version_in_either_case(zoo, text, found):
    assert names(Wish(text=text)) == found


def test_tags_are_found_by_text_and_by_themselves(zoo):
    devices.tag_device(device=zoo["idle"].device, tags=["North", "gpu"], now=NOW, by=None)
    devices.tag_device(device=zoo["away"].device, tags=["north pole"], now=NOW, by=None)

    assert names(Wish(text="north")) == ["away", "idle"]
    assert names(Wish(tag="North")) == ["idle"]
    assert device_list(VIEWER, Wish(), NOW).tags == ["gpu", "North", "north pole"]


def test_counts_are_of_what_the_text_leaves(zoo):
    counts = device_list(VIEWER, Wish(text="e", show=Show.PENDING), NOW).counts

    assert counts[Show.ALL] == len([name for name in KINDS[Show.ALL] if "e" in name or name in ("busy", "lost")])
    assert counts[Show.PENDING] == 1


def test_each_order_is_true_both_ways(zoo):
    devices.heard_from(connection_ids=[zoo["idle"].connection_id], now=at(90))

    assert names(Wish(sort=Sort.NAME)) == sorted(KINDS[Show.ALL])
    assert names(Wish(sort=Sort.NAME, descending=True)) == sorted(KINDS[Show.ALL], reverse=True)
    assert names(Wish(sort=Sort.HEARD, descending=True))[0] == "idle"
    assert set(names(Wish(sort=Sort.HEARD))[:4]) == {"away", "new", "barred", "gone"}
    assert set(names(Wish(sort=Sort.STATE))[:5]) == KINDS[Show.ATTENTION]
    rounds = [line.rounds for line in device_list(VIEWER, Wish(sort=Sort.ROUNDS, descending=True), NOW).lines]
    assert rounds == [1] * 5 + [0] * 5


def test_examples_order_by_all_that_a_device_offers():
    crowd(3)

    assert names(Wish(sort=Sort.EXAMPLES, descending=True)) == ["crowd-0002", "crowd-0001", "crowd-0000"]


def test_pages_hold_all_devices_once_and_one_too_far_is_the_last():
    made = crowd(2 * DEVICES_A_PAGE + 1)

    pages = [names(Wish(page=number)) for number in (1, 2, 3)]

    assert [len(page) for page in pages] == [DEVICES_A_PAGE, DEVICES_A_PAGE, 1]
    assert [name for page in pages for name in page] == [device.name for device in made]
    assert names(Wish(page=99)) == pages[2]
    assert device_list(VIEWER, Wish(), NOW).pages == 3
