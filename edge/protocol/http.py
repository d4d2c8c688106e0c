"""The bodies of a device's HTTP requests and their answers; weights themselves travel as safetensors."""

from datetime import datetime

import msgspec

MANIFEST_HEADER = "X-QFLARE-Manifest"
"""Base64 of the exact manifest bytes that were signed."""

SIGNATURE_HEADER = "X-QFLARE-Signature"
"""Base64 of the ML-DSA-65 signature over the manifest (updates) or over the body (enrolment and its receipt)."""


class ServerIdentity(msgspec.Struct, kw_only=True, frozen=True):
    """`GET /api/v1/server/`: who the server is; a device checks the fingerprint against its token or its pin."""

    protocol: str
    algorithm: str
    public_key: str
    fingerprint: str
    version: str


class EnrollmentRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`POST /api/v1/enroll/`: the body, signed as it is with the new key (context `qflare/v1/enroll`)."""

    protocol: str
    algorithm: str
    token_id: str
    token_secret: str
    public_key: str
    name: str
    edge_version: str = ""


class EnrollmentReceipt(msgspec.Struct, kw_only=True, frozen=True):
    """The answer to an enrolment, signed as it is by the server (context `qflare/v1/receipt`)."""

    device_id: int
    name: str
    state: str
    device_fingerprint: str
    server_public_key: str
    server_fingerprint: str


class UpdateManifest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a device says of its update; its exact bytes are signed (context `qflare/v1/update`) and stored."""

    algorithm: str
    protocol: str
    device_id: int
    run_id: int
    round: int
    assignment_id: int
    base_digest: str
    update_digest: str
    """SHA-256 of the file's bytes."""
    size: int
    num_examples: int
    metrics: dict[str, float]


class UpdateReceipt(msgspec.Struct, kw_only=True, frozen=True):
    """`PUT` of an update: what became of it; sending the same again answers the same."""

    assignment_id: int
    state: str
    reason: str = ""
    received_at: datetime | None = None


class Problem(msgspec.Struct, kw_only=True, frozen=True):
    """Why a request was refused: what, why, what to do."""

    code: str
    message: str
    action: str = ""


class ProblemBody(msgspec.Struct, kw_only=True, frozen=True):
    """The one shape of every error under `/api/`."""

    error: Problem
