"""Settings from the environment: typed, and failing loudly at start rather than oddly later."""

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


class BadSetting(ValueError):
    """An environment variable holds what it must not; the text names it, and what it may hold."""


def env_str(name: str, default: str = "", source: Mapping[str, str] = os.environ) -> str:
    """Return a text, or the content of the file that `NAME_FILE` names."""
    if name not in source and (path := source.get(f"{name}_FILE")):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise BadSetting(f"{name}_FILE names a file that cannot be read: {error}") from error
    return source.get(name, default)


def env_bool(name: str, default: bool, source: Mapping[str, str] = os.environ) -> bool:
    """Return a truth value: 1/true/yes/on or 0/false/no/off."""
    value = source.get(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise BadSetting(f"{name}={value!r}: must be one of 1, true, yes, on, 0, false, no, off")


def env_number(
    name: str, default: float, minimum: float, maximum: float, source: Mapping[str, str] = os.environ
) -> float:
    """Return a number in [minimum, maximum]."""
    value = source.get(name)
    if value is None:
        return default
    try:
        number = float(value)
    except ValueError as error:
        raise BadSetting(f"{name}={value!r}: must be a number") from error
    if not minimum <= number <= maximum:
        raise BadSetting(f"{name}={value}: must be between {minimum:g} and {maximum:g}")
    return number


def env_list(name: str, default: str = "", source: Mapping[str, str] = os.environ) -> list[str]:
    """Return the parts of a comma-separated text, without blanks."""
    return [part.strip() for part in source.get(name, default).split(",") if part.strip()]


def name_in(name: str, value: str) -> str:
    """Return a short name of letters, digits and `-_.`, which may be a part of other names."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,30}", value) is None:
        raise BadSetting(f"{name}={value!r}: must be 1 to 30 letters, digits, or any of - _ .")
    return value


def networks_in(name: str, values: Sequence[str]) -> list[IPv4Network | IPv6Network]:
    """Return the networks that these texts name: addresses, or networks such as 10.0.0.0/8."""
    try:
        return [ip_network(value) for value in values]
    except ValueError as error:
        raise BadSetting(f"{name}: {error}; list addresses, or networks such as 10.0.0.0/8") from error


def text_kept_in(path: Path, make: Callable[[], str]) -> str:
    """Return the text that a private file (0600) keeps, making it at the first call; processes that race agree."""
    if path.is_file():
        return path.read_text()
    text = make()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadSetting(
            f"the data folder {path.parent} cannot be written to ({error}); set QFLARE_DATA_DIR"
        ) from error
    try:
        # A link fails where the name is taken and shows a whole file or none, so those who race agree on one text.
        os.link(partial, path)
    except FileExistsError:
        return path.read_text()
    finally:
        partial.unlink()
    return text
