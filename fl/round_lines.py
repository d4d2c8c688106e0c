"""A round as pages, charts and files show it."""

from dataclasses import dataclass, field
from datetime import datetime

from edge.protocol.server import Spread


@dataclass(frozen=True)
class RoundLine:
    """One round as ribbon, curve and table show it; number 0 is the initial evaluation."""

    number: int
    state: str
    reason: str = ""
    selected: int = 0
    updates_received: int = 0
    updates_lost: int = 0
    duration_seconds: float | None = None
    ended_at: datetime | None = None
    metrics: dict[str, float | None] | None = None
    device_metrics: dict[str, Spread] = field(default_factory=dict)
    version: int | None = None
    size_bytes: int | None = None
    is_best: bool = False
