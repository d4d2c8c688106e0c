"""Static files under hashed names, also inside the imports of ES modules, collected when they have changed.

The pages' scripts lose their comments as they are collected: these are a quarter of what a first visit would load.
"""

import fcntl
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.management.commands.collectstatic import Command
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.base import ContentFile, File
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage

STAMP = ".collected"
OUR_SCRIPTS = "js/"
COMMENTS = re.compile(r"^[ \t]*(?://[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)[ \t]*\n", re.MULTILINE)
"""Comments that have their lines to themselves. Within code nothing is touched: what takes blanks out of scripts took
them out of templates within templates, too. No text of ours goes over several lines, in which such a line could be."""
UNUSED = ["redoc*", "rest_framework"]
"""What packages bring and no page of ours asks for; collecting it would delay the first start."""


class ModuleManifestStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Rewrites `import … from './store.js'` to the hashed name, so that no import map is needed."""

    support_js_module_import_aggregation = True

    def _save(self, name: str, content: "File[bytes]") -> str:
        """Write a file; of the pages' own scripts what is not for the browser is left out."""
        if name.startswith(OUR_SCRIPTS):
            content.seek(0)  # its hash was taken
            content = ContentFile(COMMENTS.sub("", content.read().decode()).encode())
        return str(super()._save(name, content))  # type: ignore[misc]  # the stubs leave it out


def collect_if_stale() -> bool:
    """Collect static files into STATIC_ROOT where a source is new, changed or gone; say whether it was done.

    Servers that share the folder take turns. What the collection before has made stays, since servers of an older
    version may still serve it, and pages be open that name it; what was made before that is deleted. With DEBUG nothing
    is collected: files are served from where they are.
    """
    if settings.DEBUG:
        return False
    root, digest = Path(settings.STATIC_ROOT), _digest_of_sources()
    root.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = root / STAMP
        is_stale = not stamp.is_file() or stamp.read_text() != digest
        if is_stale:
            stamp.unlink(missing_ok=True)
            _collect(root)
            stamp.write_text(digest)
        # Now, since a server of another version may collect before the first page asks for names.
        storage = cast("Any", staticfiles_storage)
        storage.hashed_files, storage.manifest_hash = storage.load_manifest()
    return is_stale


def _collect(root: Path) -> None:
    """Collect beside the folder that is served from, and move there what it has not."""
    folder = root.with_name(f"{root.name}.new")
    shutil.rmtree(folder, ignore_errors=True)  # of one that was ended in the middle of it
    storage_in: Any = ModuleManifestStaticFilesStorage  # which has no types of its own
    before, made = storage_in(location=root), storage_in(location=folder)
    command = Command()
    command.storage = made
    call_command(command, interactive=False, verbosity=0, ignore_patterns=list(UNUSED))
    for path in folder.rglob("*"):
        target = root / path.relative_to(folder)
        if path.is_file() and path.name != made.manifest_name and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    (folder / made.manifest_name).replace(root / made.manifest_name)
    shutil.rmtree(folder)
    if made.hashed_files != before.hashed_files:
        _keep({*made.hashed_files.values(), *before.hashed_files.values(), made.manifest_name}, root)


def _keep(names: set[str], root: Path) -> None:
    """Delete all files but these, and what was compressed of them."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name.removesuffix(".gz").removesuffix(".br") not in names:
            path.unlink()


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in sorted(finder.list(UNUSED), key=lambda found: found[0]):
            status = Path(storage.path(name)).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
