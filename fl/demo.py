"""The demonstration's run, by the page's button or the command: handwritten digits, by the devices that are there."""

from datetime import datetime

from django.contrib.auth.models import User

from fl.exceptions import Conflict
from fl.models import Run
from fl.queries.devices import ready_devices
from fl.runs import RunPlan, create_run, start_run
from fl.tasks import digest_of_task

TASK = "digits"


def demo_plan(devices: int) -> RunPlan:
    """Return the plan of a demo with this many devices: all of them in each round."""
    return RunPlan(
        name="demo",
        task=TASK,
        strategy="fedavg",
        rounds=20,
        local_epochs=5,
        cohort_size=devices,
        cohort_wait_seconds=60.0,
        deadline_seconds=120.0,
        seed=7,
    )


def devices_ready_for_demo() -> int:
    """Count the devices that are online and offer the demo's task."""
    digest = digest_of_task(TASK)
    return ready_devices([digest])[digest]


def start_demo_run(*, created_by: User | None, now: datetime) -> Run:
    """Create the demo's run for the devices that are there, and start it.

    Raises:
        Conflict: no device is there.
    """
    devices = devices_ready_for_demo()
    if devices == 0:
        raise Conflict(
            f"no device that offers the task {TASK} is online", action="enrol a device, start it, and try again"
        )
    return start_run(run=create_run(plan=demo_plan(devices), created_by=created_by, now=now), now=now, by=created_by)
