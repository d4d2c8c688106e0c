"""From a device to a browser: what happens in a round is seen on the socket of a page that was open before."""

import json
from collections import defaultdict


def test_an_update_is_seen_on_its_way_from_the_device_to_the_browser(shared):
    shared.device(3, JOURNEY_HOLD=str(shared.hold))
    shared.wait_until_online(1, 2, 3)
    at_work = set()

    def all_train(frame, data):
        if frame.event == "training_progress" and frame.stream and data["phase"] == "training":
            at_work.add(data["device_name"])
        return len(at_work) == 3

    with shared.dashboard() as page:
        with shared.held():
            run = shared.start_run(cohort_size=3, rounds=1)
            page.read_until(all_train)
        page.read_until(lambda frame, data: frame.event == "fl_status_update" and data["state"] == "completed")

    # Each device's part is seen as it goes on, with ticks in between, before the model that comes of it.
    assert {name for _, name in assigned(shared, run)} == at_work
    for assignment, _ in assigned(shared, run):
        phases = [data["phase"] for _, data in durable(page, "training_progress", assignment_id=assignment)]
        assert [phase for phase in phases if phase != "uploading"] == ["assigned", "training", "accepted"]
    # The whole round may be shorter than the time between two ticks, so not every device need be in one.
    ticks = [tick for frame, data in page.frames if frame.key for tick in data["devices"]]
    assert ticks
    assert {tick["assignment_id"] for tick in ticks} <= {assignment for assignment, _ in assigned(shared, run)}
    assert all(0 < tick["progress"] <= 1 for tick in ticks)
    told = [label_of(frame, data) for frame, data in page.frames if frame.seq and data.get("run_id") == run]
    order = ["0 completed", "accepted", "1 started", "1 completed", "round_completed", "run completed"]
    assert [max(place for place, what in enumerate(told) if what == label) for label in order] == sorted(
        max(place for place, what in enumerate(told) if what == label) for label in order
    )
    assert told.count("accepted") == 3

    # Streams have no holes from the welcome on, and what was shown is what the log holds.
    welcome = next(data for frame, data in page.frames if frame.event == "welcome")
    seen = defaultdict(list)
    for frame, data in page.frames:
        if frame.seq:
            seen[frame.stream].append((frame.seq, frame.event, data))
    assert {"system", f"run:{run}"} <= set(seen)
    for stream, events in seen.items():
        start = welcome["streams"].get(stream, {"seq": 0})["seq"]
        assert [seq for seq, _, _ in events] == list(range(start + 1, start + 1 + len(events)))
        assert events == log_of(shared, stream, after=start)[: len(events)]


def assigned(house, run):
    return [(row["id"], row["name"]) for row in house.assignments(run)]


def durable(page, event, **fields):
    for frame, data in page.frames:
        if frame.seq and frame.event == event and all(data.get(name) == value for name, value in fields.items()):
            yield frame, data


def label_of(frame, data):
    match frame.event:
        case "model_aggregation":
            return f"{data['round']} {data['phase']}"
        case "training_progress":
            return data["phase"]
        case "fl_status_update":
            return f"run {data['state']}"
    return frame.event


def log_of(house, stream, *, after):
    rows = house.rows(
        "SELECT seq, event, data FROM fl_event WHERE stream_id = ? AND seq > ? ORDER BY seq", stream, after
    )
    return [(row["seq"], row["event"], json.loads(row["data"])) for row in rows]
