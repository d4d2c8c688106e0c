"""What tests begin with: people, devices with true keys, runs, and a device's whole part of a round, done by hand."""

import hashlib
import itertools
import secrets
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec
from django.contrib.auth.models import Group, User

from edge.identity import ALGORITHM, UPDATE_CONTEXT, SigningKey
from edge.protocol import PROTOCOL
from edge.protocol.client import Hello, TaskOffer
from edge.protocol.http import EnrollmentRequest, UpdateManifest, UpdateReceipt
from edge.tasks import DataSource, TrainingSettings, find_task
from edge.training import train
from edge.weights import Weights
from edge.wire import encode, read_file
from fl import devices, files, runs, updates
from fl.coordination import advance, advance_run
from fl.models import Assignment, Device, DeviceTask, PresenceLease, Round, Run
from fl.rounds import open_round_of
from fl.runs import RunPlan
from fl.tasks import digest_of_task, spec_of_task

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    """Return a moment so many seconds after the tests' noon."""
    return NOW + timedelta(seconds=seconds)


def person(name: str, role: str = "") -> User:
    """Make a person with a role (viewer, operator, admin) or none."""
    user = User.objects.create_user(name, password="correct horse battery staple")
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


@dataclass
class Participant:
    """A device, with the key that only it has."""

    device: Device
    key: SigningKey
    task: str = "linear"
    connection_id: str = ""

    def connect(self, now: datetime = NOW, *, num_examples: int = 40, digest: str = "") -> "Participant":
        self.connection_id = secrets.token_hex(8)
        offer = TaskOffer(
            task=self.task, digest=digest or digest_of_task(self.task), num_examples=num_examples, supports=["proximal"]
        )
        hello = Hello(protocol=PROTOCOL, device_id=self.device.pk, tasks=[offer], edge_version="0.1.0")
        devices.connected(
            device_id=self.device.pk, connection_id=self.connection_id, instance="tests", hello=hello, now=now
        )
        return self

    def assignment(self) -> Assignment:
        return (
            Assignment.objects.select_related("round", "round__run", "round__base_model", "device")
            .filter(device=self.device)
            .latest("pk")
        )

    def train(self) -> tuple[Weights, int, dict[str, float]]:
        """Train as the real device does, on data that depends on its assignment alone."""
        assignment = self.assignment()
        run = assignment.round.run
        task = find_task(run.task)
        base = read_file(files.local_path(assignment.round.base_model.file), spec_of_task(run.task))
        settings = TrainingSettings(
            local_epochs=run.local_epochs,
            batch_size=run.batch_size,
            learning_rate=run.learning_rate,
            momentum=run.momentum,
            seed=assignment.cohort_index,
        )
        examples = task.training_examples(DataSource())
        result = train(task, examples, base, settings, lambda _: None, lambda: False)
        return result.delta, result.num_examples, result.metrics

    def manifest(
        self, data: bytes, *, num_examples: int = 40, metrics: dict[str, float] | None = None, **changes: object
    ):
        assignment = self.assignment()
        manifest = UpdateManifest(
            algorithm=ALGORITHM,
            protocol=PROTOCOL,
            device_id=self.device.pk,
            run_id=assignment.round.run_id,
            round=assignment.round.number,
            assignment_id=assignment.pk,
            base_digest=assignment.round.base_model.digest,
            update_digest=hashlib.sha256(data).hexdigest(),
            size=len(data),
            num_examples=num_examples,
            metrics={"loss": 1.0} if metrics is None else metrics,
        )
        return msgspec.json.encode(msgspec.structs.replace(manifest, **changes))

    def send(
        self,
        weights: Weights | None = None,
        *,
        data: bytes | None = None,
        manifest: bytes | None = None,
        signature: bytes | None = None,
        now: datetime = NOW,
        assignment: Assignment | None = None,
        **changes: object,
    ) -> UpdateReceipt:
        """Send an update; what is not given is as an honest device makes it.

        Args:
            assignment: as `assignment_of` returned it when the update began to arrive.
        """
        if data is None:
            if weights is None:
                weights, count, metrics = self.train()
                changes = {"num_examples": count, "metrics": metrics, **changes}
            data = encode(weights)
        manifest = self.manifest(data, **changes) if manifest is None else manifest
        file = files.ReceivedFile()
        try:
            file.write(data)
            file.complete()
            return updates.accept_update(
                assignment=assignment or updates.assignment_of(self.device.pk, self.assignment().pk),
                manifest=manifest,
                signature=self.key.sign(manifest, UPDATE_CONTEXT) if signature is None else signature,
                file=file,
                now=now,
            )
        finally:
            file.discard()


def participant(name: str = "", *, task: str = "linear", auto_approve: bool = True, now: datetime = NOW) -> Participant:
    """Enrol a device through the use cases, with a true key."""
    key = SigningKey.generate()
    _, text = devices.issue_token(
        label="", auto_approve=auto_approve, lifetime=timedelta(hours=1), created_by=None, now=now
    )
    request = EnrollmentRequest(
        protocol=PROTOCOL,
        algorithm=ALGORITHM,
        token_id=text.id,
        token_secret=text.secret,
        public_key=b64encode(key.public_key).decode(),
        name=name or f"device-{next(_numbers)}",
    )
    return Participant(devices.enroll(request=request, now=now), key, task)


def fleet(count: int, *, task: str = "linear", now: datetime = NOW) -> list[Participant]:
    """Enrol and connect so many devices."""
    return [participant(task=task, now=now).connect(now) for _ in range(count)]


def crowd(count: int, *, online: int = 0, now: datetime = NOW) -> list[Device]:
    """Make rows of so many devices that offer a task and have no true keys; the first of them are online."""
    devices = Device.objects.bulk_create(
        Device(
            name=f"crowd-{number:04d}",
            public_key=b"key",
            fingerprint=f"{number:064d}",
            state="active",
            edge_version="0.1.0",
            enrolled_at=now,
            last_heard_at=now,
        )
        for number in range(count)
    )
    DeviceTask.objects.bulk_create(
        DeviceTask(device=device, task="digits", digest="d" * 64, num_examples=number)
        for number, device in enumerate(devices)
    )
    PresenceLease.objects.bulk_create(
        PresenceLease(
            device=device,
            connection_id=f"crowd-{device.pk}",
            instance="tests",
            connected_at=now,
            lease_until=now + timedelta(days=1),
        )
        for device in devices[:online]
    )
    return devices


PLAN = RunPlan(
    name="a run", task="linear", rounds=2, cohort_size=2, seed=7, cohort_wait_seconds=10, deadline_seconds=60
)


def started_run(now: datetime = NOW, **changes: object) -> Run:
    """Make a run and start it: its initial model is there and its first round is open."""
    run = runs.create_run(plan=replace(PLAN, **changes), created_by=None, now=now)
    runs.start_run(run=run, now=now)
    advance_run(run.pk, lambda: now)
    run.refresh_from_db()
    return run


def current_round(run: Run) -> Round:
    """Return the open round of a run."""
    round_ = open_round_of(run)
    assert round_ is not None
    return round_


def step(run: Run, now: datetime = NOW) -> bool:
    """Do what the open round of a run calls for."""
    return advance(current_round(run).pk, lambda: now)
