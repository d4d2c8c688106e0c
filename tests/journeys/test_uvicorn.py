"""A run on the other web server: weights, updates, sockets, and an end in the middle of it."""

from signal import SIGTERM


def test_a_run_goes_on_over_a_restart_of_uvicorn(house):
    house.serve("--server", "uvicorn")
    house.fleet(2, JOURNEY_HOLD=str(house.hold))
    house.wait_until_online(1, 2)

    with house.held():
        run = house.start_run(cohort_size=2, rounds=2)
        for device in (1, 2):
            house.wait_for_assignment(run, 1, device, "training")
        house.server.send(SIGTERM)
        assert house.server.wait() == 0
        house.serve("--server", "uvicorn")
        with house.dashboard() as page:
            house.let_go()
            house.wait_for_run(run)
            page.read_until(lambda frame, data: frame.event == "fl_status_update" and data["state"] == "completed")

    assert [update["state"] for update in house.updates(run)] == ["accepted"] * 4
    assert [model["version"] for model in house.models(run)] == [0, 1, 2]
    assert house.holes() == []
