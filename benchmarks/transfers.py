"""Uploads and downloads of 200 MB beside what a stock view and a stock server make of them, in the same run.

    python benchmarks/transfers.py                  five blocks of each, which alternate
    python benchmarks/transfers.py --blocks 1       a look: too few for figures

Upload: QFLARE's door behind `manage.py serve`, and a Django view with `request.read` on stock Daphne; both write to the
same sink (hash, file, fsync) and call the same use case. Speeds are those of sending an update again, which is written
as at first and answered like it without its checks; memory and echo are those of an update that is checked and
accepted. Download: QFLARE's door, and an ASGI application on stock Daphne that sends bytes from memory. Echo: a
WebSocket's ping every 5 ms, alone and beside an upload. What goes before, so that both servers know the model's shapes
(which takes a second, and as much memory as the model): an upload that QFLARE refuses for its length, and one to the
stock view. What was written before is on the disk when a transfer begins, so that none waits for another's. Memory is
the worst peak above what the server had before the first upload, or before the first download.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = Path(__file__).resolve().parent
ROOT = PARTS.parent
MB = 1_000_000
READERS, READER_BYTES = 10, 100 * MB
ECHO_ALONE_SECONDS = 3.0
START_SECONDS = 120.0
BUSY_LOAD = 0.5


@dataclass
class Figures:
    """What was measured: one value a block, but for the echo, whose every answer is there."""

    upload_mb_s: list[float] = field(default_factory=list)
    stock_upload_mb_s: list[float] = field(default_factory=list)
    upload_rise_mb: list[float] = field(default_factory=list)
    download_mb_s: list[float] = field(default_factory=list)
    stock_download_mb_s: list[float] = field(default_factory=list)
    readers_rise_mb: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=5, help="blocks of each kind (default 5)")
    blocks = parser.parse_args().blocks
    figures = Figures()
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        print(f"the machine is busy (load {load:.1f}): these will be no figures to keep", flush=True)
    with tempfile.TemporaryDirectory(prefix="transfers-") as folder, _both(Path(folder), blocks + 2) as servers:
        ours, stock, (refused, first, *fresh) = servers
        _client("refused", ours.port, refused["update_path"], _headers(refused))
        _upload(stock, first)
        ours.take_level()
        for sent in fresh:
            _upload_block(ours, stock, sent, figures)
            print(f"upload {figures.upload_mb_s[-1]:.0f}, stock {figures.stock_upload_mb_s[-1]:.0f} MB/s", flush=True)
        ours.take_level()
        for sent in fresh:
            _download_block(ours, stock, sent, figures)
            print(
                f"download {figures.download_mb_s[-1]:.0f}, stock {figures.stock_download_mb_s[-1]:.0f} MB/s",
                flush=True,
            )
    _print_table(figures)


def _upload_block(ours: "Server", stock: "Server", sent: dict[str, Any], figures: Figures) -> None:
    size = Path(sent["update"]).stat().st_size
    figures.alone_ms += _echo(ours, lambda: time.sleep(ECHO_ALONE_SECONDS))
    with ours.watched(figures.upload_rise_mb):
        figures.beside_ms += _echo(ours, lambda: _upload(ours, sent))
    figures.upload_mb_s.append(size / MB / _upload(ours, sent))
    figures.stock_upload_mb_s.append(size / MB / _upload(stock, sent))


def _download_block(ours: "Server", stock: "Server", sent: dict[str, Any], figures: Figures) -> None:
    path, headers = sent["weights_path"], {"Authorization": sent["authorization"]}
    size = sent["weights_size"]
    figures.download_mb_s.append(size / MB / _client("download", ours.port, path, json.dumps(headers), 1))
    figures.stock_download_mb_s.append(size / MB / _client("download", stock.port, f"/bare/{size}", "{}", 1))
    part = json.dumps({**headers, "Range": f"bytes=0-{READER_BYTES - 1}"})
    with ours.watched(figures.readers_rise_mb):
        _client("download", ours.port, path, part, READERS)


def _print_table(figures: Figures) -> None:
    middle = statistics.median
    pairs = zip(figures.upload_mb_s, figures.stock_upload_mb_s, strict=True)
    upload_ratio = middle(ours / stock for ours, stock in pairs)
    pairs = zip(figures.download_mb_s, figures.stock_download_mb_s, strict=True)
    download_ratio = middle(ours / stock for ours, stock in pairs)
    print(f"\n{'':44}{'QFLARE':>10}{'stock':>10}  to reach")
    rows = [
        ("upload of 200 MB, MB/s", middle(figures.upload_mb_s), middle(figures.stock_upload_mb_s), ""),
        ("  times the stock view", upload_ratio, 1.0, "at least 2.0"),
        (
            "  memory up by, MB (worst)",
            max(figures.upload_rise_mb),
            None,
            "at most 16",
        ),
        (
            "download of 200 MB, MB/s",
            middle(figures.download_mb_s),
            middle(figures.stock_download_mb_s),
            "at least 400",
        ),
        ("  times the bare ASGI send", download_ratio, 1.0, "at least 0.8"),
        ("ten readers of 100 MB, memory up by, MB", max(figures.readers_rise_mb), None, "at most 64"),
    ]
    for name, ours, stock, target in rows:
        print(f"{name:44}{ours:>10.2f}{'' if stock is None else f'{stock:.2f}':>10}  {target}")
    print(f"\n{'a 5 ms echo':44}{'alone':>10}{'beside':>10}  to reach (more if alone exceeds a third of it)")
    for name, of, target in (("  p99, ms", _p99, "at most 50"), ("  longest, ms", max, "at most 100")):
        print(f"{name:44}{of(figures.alone_ms):>10.2f}{of(figures.beside_ms):>10.2f}  {target}")
    print(f"{'  answers':44}{len(figures.alone_ms):>10}{len(figures.beside_ms):>10}")


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _upload(server: "Server", sent: dict[str, Any]) -> float:
    return _client("upload", server.port, sent["update_path"], sent["update"], _headers(sent))


def _headers(sent: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in sent.items() if name == "authorization" or name.startswith("X-")})


def _client(*arguments: object) -> float:
    os.sync()
    done = subprocess.run(_client_command(*arguments), env=_environment(), check=True, capture_output=True, text=True)
    return float(done.stdout)


def _echo(server: "Server", meanwhile: Any) -> list[float]:
    """Return how long a ping's answer took, each while something else is done."""
    command = _client_command("echo", server.port)
    pinging = subprocess.Popen(command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert pinging.stdout is not None and pinging.stdin is not None
    if pinging.stdout.readline() != "open\n":
        raise SystemExit("no socket could be opened for the echo")
    meanwhile()
    answer, _ = pinging.communicate("enough\n")
    took: list[float] = json.loads(answer)
    return took


def _client_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "transfers_parts.client", *map(str, arguments)]


# ── servers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Server:
    """A server's process, its port, and its memory."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._level = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [part.replace("{port}", str(self.port)) for part in command]
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=said, stderr=said
            )
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}") from None
                time.sleep(0.05)

    @contextmanager
    def watched(self, rises: list[float]) -> Iterator[None]:
        """Add how many MB its memory was above the level at most meanwhile."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak begins anew
        yield
        rises.append((self._memory("VmHWM") - self._level) / MB)

    def take_level(self) -> None:
        """Take what it has now for the level."""
        self._level = self._memory("VmRSS")

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024


@contextmanager
def _both(data: Path, devices: int) -> Iterator[tuple[Server, Server, list[dict[str, Any]]]]:
    """Start QFLARE and the stock server over one database, with devices that each have an update to send."""
    environment = _environment(
        QFLARE_DATA_DIR=str(data),
        DATABASE_URL="",
        REDIS_URL="",
        QFLARE_TASKS="transfers_parts.task:Wide",
        QFLARE_DEVICE_TOKEN_SECONDS="86400",  # noqa: S106 - a number of seconds
        QFLARE_LOG_LEVEL="ERROR",
    )
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    prepare = [sys.executable, "-m", "transfers_parts.prepare", str(data), str(devices)]
    prepared = subprocess.run(prepare, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    ours = Server(["manage.py", "serve", "--no-coordinator", "--port", "{port}"], environment, data / "ours.log")
    try:
        command = ["-m", "daphne", "-v", "0", "-p", "{port}", "transfers_parts.stock:application"]
        stock_environment = {**environment, "DJANGO_SETTINGS_MODULE": "transfers_parts.stock_settings"}
        stock = Server(command, stock_environment, data / "stock.log")
        try:
            yield ours, stock, json.loads(prepared.stdout.splitlines()[-1])
        finally:
            stock.stop()
    finally:
        ours.stop()


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{PARTS}", "DJANGO_SETTINGS_MODULE": "qflare.settings", **changes}


if __name__ == "__main__":
    main()
