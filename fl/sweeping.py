"""Clearing away what nothing names: files whose process died before its row; and what is past its time in the logs."""

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage

from fl import audit, events, trash
from fl.files import incoming_folder
from fl.models import GlobalModel, IdempotentRequest, SignInCode, Update

ANSWERS_ARE_KEPT = timedelta(hours=24)


def sweep(*, now: datetime) -> list[str]:
    """Delete files older than QFLARE_SWEEP_SECONDS that no row names; return their names."""
    before = now - timedelta(seconds=settings.QFLARE_SWEEP_SECONDS)
    events.prune(now=now)
    audit.prune(now=now)
    trash.purge(now=now)  # before the names are read below: no row names the files of what has gone
    IdempotentRequest.objects.filter(created_at__lt=now - ANSWERS_ARE_KEPT).delete()
    SignInCode.objects.filter(expires_at__lt=now - ANSWERS_ARE_KEPT).delete()
    named = set(Update.objects.exclude(file="").values_list("file", flat=True))
    for row in GlobalModel.objects.values_list("file", "strategy_state_file"):
        named.update(row)
    swept = [name for name in _stored() if name not in named and _is_older(name, before)]
    for name in swept:
        default_storage.delete(name)
    _delete_empty_folders("updates", before)
    for partial in incoming_folder().glob("*.partial"):
        with suppress(FileNotFoundError):  # it has just arrived, and has its name in storage now
            if datetime.fromtimestamp(partial.stat().st_mtime, tz=now.tzinfo) < before:
                partial.unlink()
    return swept


def _stored() -> list[str]:
    names = []
    for folder in ("models", "updates"):
        names += _walk(folder)
    return names


def _delete_empty_folders(folder: str, before: datetime) -> None:
    """Delete the folders of rounds whose files have gone; in that of a round that goes on, something was put lately."""
    if not default_storage.exists(folder):
        return
    for inner in default_storage.listdir(folder)[0]:
        name = str(Path(folder) / inner)
        if not any(default_storage.listdir(name)) and _is_older(name, before):
            with suppress(FileNotFoundError):  # another coordinator was first
                default_storage.delete(name)


def _walk(folder: str) -> list[str]:
    if not default_storage.exists(folder):
        return []
    folders, files = default_storage.listdir(folder)
    names = [str(Path(folder) / file) for file in files]
    for inner in folders:
        names += _walk(str(Path(folder) / inner))
    return names


def _is_older(name: str, before: datetime) -> bool:
    try:
        return default_storage.get_modified_time(name) < before
    except FileNotFoundError:
        # It was let go of, or took its final name, since the folder was read.
        return False
