"""What a device can be told: by a flag, else by a QFLARE_* variable, else by `edge.toml` in its folder, else here."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.errors import BadUsage

if TYPE_CHECKING:
    from edge.partition import Partition

SETTINGS_FILE = "edge.toml"
DEFAULT_TASK = "digits"


class FileSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`edge.toml`: the settings that a file may hold, under the names of the flags; all are optional."""

    server: str | None = None
    task: list[str] | None = None
    data: str | None = None
    partition: str | None = None
    threads: int | None = None
    model: bool | None = None
    on_model: str | None = None
    ca: str | None = None
    json: bool | None = None
    workers: int | None = None


@dataclass(frozen=True)
class DeviceSettings:
    """How a device works.

    Attributes:
        tasks: names of the tasks it offers to train.
        data: folder of its own examples; None for what the tasks find by themselves.
        partition: which piece of the examples is its own, for simulation.
        threads: torch's threads an operation, at least 1.
        keep_model: whether to keep the newest model of each run as a file.
        on_model: command to run after each new model, as its words; empty for none.
        server: address to use instead of the one enrolled with; the pinned key stays.
        ca: file with the certificates to trust for https, instead of the usual ones.
    """

    tasks: tuple[str, ...] = (DEFAULT_TASK,)
    data: Path | None = None
    partition: Partition | None = None
    threads: int = 1
    keep_model: bool = True
    on_model: tuple[str, ...] = ()
    server: str | None = None
    ca: Path | None = None


def default_home() -> Path:
    """Return the folder of a device for which none is named: `qflare-edge` among the user's application data."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "qflare-edge"


def read_settings(home: Path) -> dict[str, object]:
    """Read `edge.toml` in a device's folder; without the file there are no settings.

    Raises:
        BadUsage: it cannot be read, or holds a setting that does not exist or is of the wrong type.
    """
    path = home / SETTINGS_FILE
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=FileSettings)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        known = ", ".join(FileSettings.__struct_fields__)
        raise BadUsage(f"The settings in {path} cannot be used", str(error), f"The settings are: {known}.") from error
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}


def split_command(text: str | None) -> tuple[str, ...]:
    """Split a command into its words as a shell would; no shell ever sees it.

    Raises:
        BadUsage: a quotation mark is not closed.
    """
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise BadUsage("The command for new models cannot be read", str(error), "Close the quotation.") from error
