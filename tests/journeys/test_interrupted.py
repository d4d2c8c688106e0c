"""The server is told to end while it works on a round: it leaves the work, and the next one does it at once."""

import signal
import time

import pytest

from tests.journeys.waiting import wait_for

END_SECONDS = 5
MARGIN_SECONDS = 10
PLAN = {"cohort_size": 3, "rounds": 1, "strategy": "held"}


@pytest.mark.parametrize("work", ["aggregation", "evaluation"])
def test_on_sigterm_the_work_on_a_round_is_left_its_claim_given_back_and_the_next_process_does_the_same(house, work):
    # A claim that was kept would hold up the round for far longer than the test waits.
    house.settings |= {"DJANGO_SETTINGS_MODULE": "tests.journeys.slow_settings", "QFLARE_CLAIM_SECONDS": "3600"}
    hold = house.folder / f"hold-{work}"
    house.serve(**{f"JOURNEY_HOLD_{work.upper()}": str(hold)})
    house.fleet(3, JOURNEY_HOLD=str(house.hold))
    house.wait_until_online(1, 2, 3)
    with house.held():
        run = house.start_run(**PLAN)
        house.wait_for_assignment(run, 1, 1, "training")
        hold.touch()  # not before: the first model is measured too
    state = {"aggregation": "aggregating", "evaluation": "evaluating"}[work]
    wait_for(f"the round is {state}", lambda: state_of(house, run)[0] == state, needs=house.running)
    assert state_of(house, run)[1]

    asked_at = time.monotonic()
    house.server.send(signal.SIGTERM)
    assert house.server.wait() == 0
    seconds = time.monotonic() - asked_at

    assert seconds < END_SECONDS + MARGIN_SECONDS
    assert state_of(house, run) == (state, "", None)
    assert "is left to the next coordinator" in house.server.said()
    assert "Traceback" not in house.server.said()
    hold.unlink()
    house.serve()
    house.wait_for_run(run)
    house.wait_until_online(1, 2, 3)
    undisturbed = house.start_run(**PLAN)
    house.wait_for_run(undisturbed)
    assert [model["digest"] for model in house.models(run)] == [model["digest"] for model in house.models(undisturbed)]
    assert house.holes() == []


def test_on_sigterm_the_first_model_is_left_unmeasured_and_the_next_process_begins_with_the_same(house):
    hold = house.folder / "hold-evaluation"
    hold.touch()
    house.serve(JOURNEY_HOLD_EVALUATION=str(hold))
    run = house.start_run(cohort_size=1, rounds=1)
    stored = house.data / "files" / "models"
    wait_for("the first model is stored", lambda: stored.exists() and list(stored.iterdir()), needs=house.running)

    house.server.send(signal.SIGTERM)
    assert house.server.wait() == 0

    assert house.models(run) == []
    assert "Traceback" not in house.server.said()
    hold.unlink()
    house.serve()
    wait_for("the run begins", lambda: house.models(run), needs=house.running)
    assert [stored / f"{model['digest']}.safetensors" for model in house.models(run)] == list(stored.iterdir())


def state_of(house, run):
    """Return the round's state and its claim."""
    rows = house.rounds(run)
    return (rows[0]["state"], rows[0]["claim_token"], rows[0]["claimed_until"]) if rows else (None, None, None)
