"""A program's place in each stream: each event once and in order, a gap noticed, another history never mixed in."""

import json

import pytest

from edge.following import Follower, Gap
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
