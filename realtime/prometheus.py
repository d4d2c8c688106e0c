"""Figures of the whole server in the text format that Prometheus reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from fl.queries.counts import devices_online, runs_by_state
from realtime.statistics import connection_statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Gauge:
    """A figure that may rise and fall: its name, what it is, and its values.

    Attributes:
        label: what the values differ in; empty where there is one value.
        values: the label's value → the figure.
    """

    name: str
    help: str
    values: Mapping[str, float]
    label: str = ""

    def lines(self) -> Iterator[str]:
        """Write it."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} gauge"
        for value, number in self.values.items():
            labels = f'{{{self.label}="{_escaped(value)}"}}' if self.label else ""
            yield f"{self.name}{labels} {number}"


def exposition(now: datetime) -> str:
    """Return the figures: those of connections as each process wrote them within the last seconds."""
    return "".join(f"{line}\n" for gauge in _gauges(now) for line in gauge.lines())


def _gauges(now: datetime) -> Iterator[Gauge]:
    found = connection_statistics(now)
    yield Gauge("qflare_info", "The version that runs.", {settings.QFLARE_VERSION: 1}, "version")
    yield Gauge("qflare_server_processes", "Server processes that are alive.", {"": found.processes})
    yield Gauge("qflare_connections", "Open connections by type.", found.connections, "type")
    yield Gauge("qflare_queued_frames", "Frames that wait for connections.", {"": found.queued_frames})
    yield Gauge("qflare_queued_bytes", "Bytes that wait for connections.", {"": found.queued_bytes})
    yield Gauge("qflare_longest_queue_frames", "Frames in the longest queue.", {"": found.longest_queue})
    yield Gauge("qflare_connections_behind", "Connections that are fed from the log.", {"": found.behind})
    yield Gauge("qflare_events_per_second", "Events a second, newest figure.", {"": found.events_per_second})
    yield Gauge("qflare_frames_per_second", "Frames sent a second, newest figure.", {"": found.frames_per_second})
    yield Gauge("qflare_sent_bytes", "WebSocket bytes sent since each live process began.", {"": found.bytes_sent})
    yield Gauge(
        "qflare_received_bytes", "WebSocket bytes received since each live process began.", {"": found.bytes_received}
    )
    yield Gauge("qflare_runs", "Runs by state.", runs_by_state(), "state")
    yield Gauge("qflare_devices_online", "Devices that are online.", {"": devices_online()})


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
