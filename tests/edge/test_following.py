"""A program's place in each stream: each event once and in order, a gap noticed, another history never mixed in."""

import json

import pytest

from edge.following import Follower, Gap
from edge.positions import MOST_POSITIONS
from edge.protocol.server import Position


def at(seq, epoch="e"):
    return Position(epoch=epoch, seq=seq)


def frame(event, data, **fields):
    return json.dumps({"event": event, "data": data, **fields})


def durable(seq, stream="run:1", **fields):
    return frame("broadcast", {"n": seq}, stream=stream, seq=seq, timestamp="t", **fields)


def recent(*seqs, since=None, to=None, **changes):
    logged = [{"seq": seq, "event": "broadcast", "data": {"n": seq}, "timestamp": "t"} for seq in seqs]
    since = seqs[0] - 1 if since is None else since
    to = seqs[-1] if to is None else to
    data = {"stream": "run:1", "epoch": "e", "recovered": True, "reason": "", "events": logged, "more": False}
    return frame("recent_events", {**data, "since": since, "to": to, **changes})


@pytest.fixture
def follower():
    follower = Follower({"run:1": at(5)})
    follower.query()
    return follower


def taken(follower, *frames):
    return [event.seq for text in frames for event in follower.take(text)]


def test_where_one_stands_is_in_the_address():
    follower = Follower({"run:1": at(5, "a_b-c"), "run:2": at(3, "")})

    assert follower.query() == "since=run:1:a_b-c:5"


def test_events_go_on_and_what_is_known_is_passed_over(follower):
    assert taken(follower, durable(5), durable(6), durable(6), durable(7), durable(2)) == [6, 7]
    assert follower.positions["run:1"] == at(7)


def test_a_gap_is_not_passed_over(follower):
    with pytest.raises(Gap):
        taken(follower, durable(6), durable(8))

    assert follower.positions["run:1"] == at(6)


def test_what_was_missed_joins_what_is_live(follower):
    assert taken(follower, recent(6, 7), durable(7), durable(8)) == [6, 7, 8]


def test_the_newest_events_join_where_they_reach_back_far_enough(follower):
    assert taken(follower, recent(4, 5, 6, recovered=False, reason="fresh")) == [6]


@pytest.mark.parametrize(
    "text",
    [
        recent(6, 7, epoch="other", recovered=False, reason="epoch"),
        recent(8, 9, recovered=False, reason="too_far"),
        recent(2, 3, recovered=False, reason="epoch"),
        recent(2, 3, recovered=False, reason="fresh"),
    ],
)
def test_what_does_not_join_is_left_to_the_snapshot_and_followed_from_there(follower, text):
    data = json.loads(text)["data"]
    snapshot = frame("snapshot", {"streams": {}, "runs": [], "more": False})

    events = [event for one in (text, snapshot, durable(data["to"] + 1)) for event in follower.take(one)]

    assert [(event.event, event.seq) for event in events] == [("snapshot", 0), ("broadcast", data["to"] + 1)]
    assert follower.positions["run:1"] == at(data["to"] + 1, data["epoch"])


@pytest.mark.parametrize("chunks", [[], [frame("snapshot", {"streams": {}, "runs": [], "more": True})]])
def test_one_whose_connection_ends_before_the_snapshot_comes_again_from_where_it_stood(follower, chunks):
    new = recent(60, 61, stream="run:9", recovered=False, reason="fresh")
    taken(follower, recent(8, 9, recovered=False, reason="too_far"), new, *chunks)

    assert follower.standing() == {"run:1": at(5)}
    assert follower.query() == "since=run:1:e:5"


def test_after_the_snapshot_one_comes_again_from_there(follower):
    snapshot = frame("snapshot", {"streams": {}, "runs": [], "more": False})
    taken(follower, recent(8, 9, recovered=False, reason="too_far"), snapshot)

    assert follower.query() == "since=run:1:e:9"


def test_what_is_lost_is_lost_in_however_many_pieces_it_comes(follower):
    other = {"epoch": "other", "recovered": False, "reason": "epoch"}

    assert taken(follower, recent(6, 7, more=True, **other), recent(8, 9, **other), durable(10)) == [10]


def test_one_who_knows_nothing_begins_with_the_snapshot_and_one_who_was_away_with_the_first_event(follower):
    beginner = Follower({})
    beginner.query()
    first = recent(1, 2, stream="run:9", recovered=False, reason="fresh")

    assert taken(beginner, first, durable(3, "run:9")) == [3]
    assert taken(follower, first, durable(3, "run:9")) == [1, 2, 3]


def test_a_stream_that_begins_is_followed_and_resumed_with_the_epoch_of_its_first_event(follower):
    assert taken(follower, durable(1, "run:2", epoch="f"), durable(2, "run:2")) == [1, 2]

    assert "run:2:f:2" in follower.query()


def test_a_stream_that_begins_without_an_epoch_is_resumed_once_that_is_known(follower):
    assert taken(follower, durable(1, "run:2"), durable(2, "run:2")) == [1, 2]
    assert "run:2" not in follower.query()

    assert taken(follower, recent(1, 2, 3, stream="run:2", recovered=False, reason="fresh")) == [3]

    assert "run:2:e:3" in follower.query()


def test_a_head_that_never_arrives_is_a_gap(follower):
    beat = frame("heartbeat", {"s": {"run:1": 6}})
    taken(follower, beat)
    assert follower.owes_heartbeat

    with pytest.raises(Gap):
        taken(follower, frame("heartbeat", {"s": {}}))


def test_a_head_that_arrives_in_time_is_none(follower):
    taken(follower, frame("heartbeat", {"s": {"run:1": 6}}), durable(6), frame("heartbeat", {"s": {}}))

    assert follower.positions["run:1"] == at(6)


def test_an_older_tick_of_a_key_is_dropped(follower):
    ticks = [frame("training_progress", {"n": n}, key="k", number=n, timestamp="t") for n in (1, 3, 2, 4)]

    assert [event.data["n"] for text in ticks for event in follower.take(text)] == [1, 3, 4]


def test_whoever_breaks_off_at_an_event_finds_it_again(follower):
    for event in follower.take(durable(6)):
        assert event.seq == 6
        break

    assert follower.positions["run:1"] == at(5)


def run(number, state):
    status = {"run_id": number, "state": state}
    return frame("fl_status_update", status, stream=f"run:{number}", timestamp="t", epoch="Kq3v_x-1", seq=1)


def ended(number):
    status = {"run_id": number, "state": "completed"}
    return frame("fl_status_update", status, stream=f"run:{number}", timestamp="t", seq=2)


def snapshot(*streams):
    positions = {name: {"epoch": "Kq3v_x-1", "seq": 2} for name in streams}
    return frame("snapshot", {"streams": positions, "more": False})


def test_runs_that_have_ended_are_forgotten_before_the_address_is_too_long_and_an_open_one_never():
    follower = Follower({"system": at(5, "Kq3v_x-1")})
    follower.query()
    taken(follower, run(1, "paused"))
    for number in range(100_001, 101_001):
        taken(follower, run(number, "running"), ended(number))

    query = follower.query()

    assert len(query) < 8000 - 1500  # what proxies take, less a cookie and other headers
    assert "run:1:Kq3v_x-1:1" in query and "system:Kq3v_x-1:5" in query and "run:101000:" in query
    assert len(follower.positions) == MOST_POSITIONS
    missed = frame("recent_events", {**json.loads(recent(2))["data"], "epoch": "Kq3v_x-1"})
    assert taken(follower, missed) == [2]


def test_a_program_s_positions_are_few_enough_for_the_next():
    positions = {"system": at(5), **{f"run:{number}": at(1) for number in range(1, 201)}}
    follower = Follower(positions)
    taken(follower, *(ended(number) for number in range(1, 101)))

    assert list(follower.standing()) == ["system", *(f"run:{number}" for number in range(52, 201))]
    assert follower.positions == positions | {f"run:{number}": at(2) for number in range(1, 101)}


def test_an_end_that_was_missed_counts_like_one_that_was_heard():
    follower = Follower({"system": at(5), **{f"run:{number}": at(1) for number in range(1, MOST_POSITIONS)}})
    follower.query()
    status = {"seq": 2, "event": "fl_status_update", "data": {"run_id": 7, "state": "stopped"}, "timestamp": "t"}

    taken(follower, recent(2, stream="run:7", events=[status]), run(1000, "running"))

    assert "run:1000:Kq3v_x-1:1" in follower.query()
    assert "run:7" not in follower.positions


def test_where_more_runs_are_open_than_an_address_holds_the_snapshot_tells_and_nothing_is_told_twice():
    follower = Follower({"system": at(5, "Kq3v_x-1")})
    follower.query()
    names = [f"run:{number}" for number in range(1, MOST_POSITIONS + 2)]
    taken(follower, *(run(number, "running") for number in range(1, MOST_POSITIONS + 2)))

    assert follower.query() == ""

    # All but the first, which ended meanwhile, and one that began meanwhile.
    events = [text for name in names[1:] for text in [recent(1, 2, stream=name, epoch="Kq3v_x-1", reason="fresh")]]
    begun = recent(1, 2, stream="run:9999", epoch="Kq3v_x-1", reason="fresh")
    told = taken(follower, *events, begun)
    assert told == [2] * MOST_POSITIONS + [1, 2]
    assert taken(follower, snapshot(*names[1:], "system", "run:9999")) == [0]
    assert "run:1" not in follower.positions
