"""Makes a device with an open assignment and an update to send; prints what is needed to send it, as JSON.

python -m transfers_parts.prepare FOLDER        with the environment of the server, whose database is migrated
"""

import hashlib
import json
import os
import sys
from base64 import b64encode
from datetime import timedelta
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "qflare.settings")
django.setup()

import msgspec  # noqa: E402 - Django comes first
import torch  # noqa: E402 - see above
from django.utils import timezone  # noqa: E402 - see above

from edge.identity import ALGORITHM, UPDATE_CONTEXT, SigningKey  # noqa: E402 - see above
from edge.protocol import PROTOCOL  # noqa: E402 - see above
from edge.protocol.client import Hello, TaskOffer  # noqa: E402 - see above
from edge.protocol.http import (  # noqa: E402 - see above
    MANIFEST_HEADER,
    SIGNATURE_HEADER,
    EnrollmentRequest,
    UpdateManifest,
)
from edge.wire import encode  # noqa: E402 - see above
from fl import devices, runs  # noqa: E402 - see above
from fl.coordination import SteadyClock, advance, advance_run  # noqa: E402 - see above
from fl.models import Assignment, Device, Round  # noqa: E402 - see above
from fl.payloads import update_url, weights_url  # noqa: E402 - see above
from fl.runs import RunPlan  # noqa: E402 - see above
from fl.tasks import digest_of_task  # noqa: E402 - see above

TASK = "wide"


def main() -> None:
    count, now = int(sys.argv[2]), timezone.now()
    keys = {(key := SigningKey.generate()): _connected_device(key, f"device {index}") for index in range(count)}
    plan = RunPlan(name="transfers", task=TASK, rounds=1, cohort_size=count, deadline_seconds=86_000)
    run = runs.start_run(run=runs.create_run(plan=plan, created_by=None, now=now), now=now)
    advance_run(run.pk, SteadyClock())
    advance(Round.objects.get(run=run).pk, SteadyClock())
    data = encode({"weight": torch.full((10_000, 5_000), 0.001)})
    path = Path(sys.argv[1]) / "update.safetensors"
    path.write_bytes(data)
    print(json.dumps([_told(path, data, key, device) for key, device in keys.items()]))


def _told(path: Path, data: bytes, key: SigningKey, device: Device) -> dict[str, str | int]:
    assignment = Assignment.objects.select_related("round__base_model", "round__run").get(device=device)
    manifest = _manifest(assignment, data)
    base = assignment.round.base_model
    return {
        "update": str(path),
        "update_path": update_url(assignment.pk),
        "weights_path": weights_url(base.digest),
        "weights_size": base.size,
        "authorization": f"Bearer {devices.access_token(device=device, now=timezone.now()).token}",
        MANIFEST_HEADER: b64encode(manifest).decode(),
        SIGNATURE_HEADER: b64encode(key.sign(manifest, UPDATE_CONTEXT)).decode(),
    }


def _connected_device(key: SigningKey, name: str) -> Device:
    now = timezone.now()
    _, text = devices.issue_token(label="", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now)
    request = EnrollmentRequest(
        protocol=PROTOCOL,
        algorithm=ALGORITHM,
        token_id=text.id,
        token_secret=text.secret,
        public_key=b64encode(key.public_key).decode(),
        name=name,
    )
    device = devices.enroll(request=request, now=now)
    offer = TaskOffer(task=TASK, digest=digest_of_task(TASK), num_examples=100, supports=["proximal"])
    hello = Hello(protocol=PROTOCOL, device_id=device.pk, tasks=[offer], edge_version="0.1.0")
    return devices.connected(device_id=device.pk, connection_id=name, instance="transfers", hello=hello, now=now)


def _manifest(assignment: Assignment, data: bytes) -> bytes:
    manifest = UpdateManifest(
        algorithm=ALGORITHM,
        protocol=PROTOCOL,
        device_id=assignment.device_id,
        run_id=assignment.round.run_id,
        round=assignment.round.number,
        assignment_id=assignment.pk,
        base_digest=assignment.round.base_model.digest,
        update_digest=hashlib.sha256(data).hexdigest(),
        size=len(data),
        num_examples=100,
        metrics={"loss": 1.0},
    )
    return msgspec.json.encode(manifest)


main()
