"""The device's command line: `qflare-edge enroll`, `run` and `fleet`.

Data goes to standard output, all else to standard error. What needs torch is imported by the commands that need it, so
that `--help` comes at once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

import edge
from edge.config import DEFAULT_TASK, DeviceSettings, default_home, read_settings, split_command
from edge.errors import BadUsage, EdgeError
from edge.notes import Fact, Level, Note, Tell
from edge.waiting import wait_until

if TYPE_CHECKING:
    from edge.partition import Partition

EXIT_CODES = (
    "Exit codes: 0 done; 1 unexpected; 2 wrong usage or not enrolled; 3 server not reached (when enrolling; a running "
    "device tries for ever); 4 not allowed; 5 task or data unusable; 6 device's folder unusable; 130 interrupted."
)

HOME = default_home()
HOST_NAME = socket.gethostname()

_COLOURS: dict[Level, str] = {"info": "", "warning": "yellow", "error": "red"}

app = typer.Typer(
    name="qflare-edge",
    help="A device of QFLARE: it trains models on data that never leaves it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, it ends whatever the main thread waits for."""


def main() -> None:
    """Run the command line and exit with a code that tells the cause."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except EdgeError as error:
        _show_error(error)
        sys.exit(error.exit_code)
    except _Terminated:
        sys.exit(0)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _load_settings(context: typer.Context, home: Path) -> Path:
    # The order flag, environment, file, default is the command line library's own, once it knows the file.
    context.default_map = read_settings(home)
    return home


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(edge.__version__)
        raise typer.Exit


HomeOption = Annotated[
    Path,
    typer.Option(
        help="The device's folder: key, settings (edge.toml), unsent updates, models.",
        envvar="QFLARE_HOME",
        callback=_load_settings,
        is_eager=True,
        show_default="qflare-edge among your application data",
    ),
]
TaskOption = Annotated[list[str], typer.Option(help="A task to offer; may be repeated.", envvar="QFLARE_TASK")]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Folder with this device's own examples.", envvar="QFLARE_DATA", exists=True, file_okay=False),
]
PartitionOption = Annotated[
    str | None,
    typer.Option(
        help="Take one piece of the examples, for simulation: iid:0/5, or dirichlet:0.3:0/5:7 for alpha 0.3, the first "
        "of five pieces, seed 7.",
        envvar="QFLARE_PARTITION",
    ),
]
ThreadsOption = Annotated[int, typer.Option(help="torch's threads.", envvar="QFLARE_THREADS", min=1)]
ModelOption = Annotated[
    bool, typer.Option("--model/--no-model", help="Keep the newest model of each run as a file.", envvar="QFLARE_MODEL")
]
OnModelOption = Annotated[
    str | None,
    typer.Option(
        help="Command to run after each new model, with QFLARE_MODEL_PATH, _VERSION, _RUN, _TASK and _DIGEST in its "
        "environment.",
        envvar="QFLARE_ON_MODEL",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(help="File with the certificates to trust.", envvar="QFLARE_CA", exists=True, dir_okay=False),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Say what happens as JSON lines on standard output.", envvar="QFLARE_JSON")
]


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: qflare-edge enroll https://learning.example.org --token-file token --name ward-7")
def enroll(
    server: Annotated[str, typer.Argument(help="Address of the server.", metavar="SERVER")],
    token: Annotated[str | None, typer.Option(help="Enrolment token.", envvar="QFLARE_TOKEN", show_envvar=True)] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token.", envvar="QFLARE_TOKEN_FILE", exists=True, dir_okay=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name that people will see.", envvar="QFLARE_NAME")] = HOST_NAME,
    home: HomeOption = HOME,
    ca: CaOption = None,
    json: JsonOption = False,
) -> None:
    """Make this device's key and enrol it with a server, whose key it pins. The token works once."""
    from edge.enroll import enroll, read_token
    from edge.http import Doors, Server, trusted_certificates
    from edge.store import Home

    secret = read_token(_token_text(token, token_file))
    where = Server(server)
    device = Home(home)
    with device.hold(), Doors(where, trusted_certificates(where, ca)) as doors:
        receipt = enroll(device, doors, secret, name)
    if receipt.state == "active":
        then = f"Start it: qflare-edge run --home {home}"
    else:
        then = "The server's operators must approve it before it can connect."
    text = f"This is device {receipt.device_id}, {receipt.name!r}, of {where.origin} ({receipt.state}). {then}"
    facts: dict[str, Fact] = {"device": receipt.device_id, "name": receipt.name, "state": receipt.state}
    facts |= {"server": where.origin, "fingerprint": receipt.device_fingerprint}
    _teller(json)(Note("enrolled", text, facts=facts))
    if not json:
        typer.echo(receipt.device_id)


@app.command(epilog="Example: qflare-edge run --task digits --data /srv/digits")
def run(
    home: HomeOption = HOME,
    task: TaskOption = [DEFAULT_TASK],  # noqa: B006  # never changed; the library reads it as the default
    data: DataOption = None,
    partition: PartitionOption = None,
    threads: ThreadsOption = 1,
    model: ModelOption = True,
    on_model: OnModelOption = None,
    server: Annotated[
        str | None, typer.Option(help="The server's address, if it has moved.", envvar="QFLARE_SERVER")
    ] = None,
    ca: CaOption = None,
    json: JsonOption = False,
) -> None:
    """Connect and train when asked, until stopped. What the server has not acknowledged survives every restart."""
    from edge.store import Home

    settings = DeviceSettings(
        tasks=tuple(task),
        data=data,
        partition=_partition(partition),
        threads=threads,
        keep_model=model,
        on_model=split_command(on_model),
        server=server,
        ca=ca,
    )
    Home(home).account()  # a mistake is said at once, not after seconds of importing torch

    from edge.device import Device

    with Device(home, settings, _teller(json)) as device:
        wait_until(device.wait)


@app.command(epilog="Example: qflare-edge fleet http://127.0.0.1:8000 --devices 50 --tokens-file tokens --task linear")
def fleet(
    devices: Annotated[int, typer.Option(help="How many devices.", envvar="QFLARE_DEVICES", min=1)],
    server: Annotated[
        str | None, typer.Argument(help="Address of the server; needed to enrol.", metavar="[SERVER]")
    ] = None,
    tokens_file: Annotated[
        Path | None,
        typer.Option(
            help="File with one enrolment token a line, one for each device.",
            envvar="QFLARE_TOKENS_FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    home: HomeOption = HOME,
    name: Annotated[str, typer.Option(help="What the devices' names begin with.", envvar="QFLARE_NAME")] = "fleet",
    task: TaskOption = [DEFAULT_TASK],  # noqa: B006  # never changed; the library reads it as the default
    data: DataOption = None,
    partition: PartitionOption = None,
    threads: ThreadsOption = 1,
    workers: Annotated[
        int, typer.Option(help="Devices that train at the same time.", envvar="QFLARE_WORKERS", min=1)
    ] = os.cpu_count() or 1,
    model: ModelOption = True,
    ca: CaOption = None,
    json: JsonOption = False,
) -> None:
    """Run many devices in this one process, each with its own key, socket and data; for simulation and load tests.

    Each takes the piece of the examples that has its number; without --partition they share them equally (iid).
    """
    settings = DeviceSettings(
        tasks=tuple(task),
        data=data,
        partition=_partition(partition),
        threads=threads,
        keep_model=model,
        server=server,
        ca=ca,
    )
    tokens = _read_text(tokens_file).split() if tokens_file else []

    from edge.fleet import Fleet

    many = Fleet(home, devices, settings, _teller(json), tokens=tokens, workers=workers, name=name, details=json)
    with many:
        wait_until(many.wait)


def _token_text(token: str | None, token_file: Path | None) -> str:
    if token:
        return token
    if token_file:
        return _read_text(token_file)
    raise BadUsage(
        "This device cannot be enrolled",
        "there is no enrolment token",
        "Give it with --token-file, in QFLARE_TOKEN, or with --token; the server's operators make one.",
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"The file {path} cannot be read", str(error), "Name another file.") from error


def _partition(text: str | None) -> Partition | None:
    from edge.partition import InvalidPartition, Partition

    try:
        return Partition.parse(text) if text else None
    except InvalidPartition as error:
        raise BadUsage("The partition cannot be followed", str(error)) from error


def _teller(as_json: bool) -> Tell:
    return _json_teller() if as_json else _text_teller()


def _text_teller() -> Tell:
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def tell(note: Note) -> None:
        time = Text(f"{datetime.now():%H:%M:%S} ", style="dim")
        console.print(time + Text(note.text, style=_COLOURS[note.level]))

    return tell


def _json_teller() -> Tell:
    lock = threading.Lock()

    def tell(note: Note) -> None:
        line: Mapping[str, Fact] = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "kind": note.kind,
            "level": note.level,
            "text": note.text,
            **note.facts,
        }
        with lock:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()

    return tell


def _show_error(error: EdgeError) -> None:
    """Say what, why and what to do, a line each."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(f"{error.what}.", style="bold red"))
    why = error.why.rstrip(".")
    # A cause that begins with a word begins a sentence; one that begins with a file's name does not.
    console.print(Text(f"{why[:1].upper()}{why[1:]}." if why.split(" ")[0].isalpha() else f"{why}."))
    if error.action:
        console.print(Text(error.action))
