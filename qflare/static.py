"""Static files under hashed names, also inside the imports of ES modules, collected when they have changed.

The pages' scripts lose their comments as they are collected: these are a quarter of what a first visit would load.
"""

import hashlib
import re
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
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

    With DEBUG nothing is collected: files are served from where they are.
    """
    if settings.DEBUG:
        return False
    stamp = Path(settings.STATIC_ROOT) / STAMP
    digest = _digest_of_sources()
    if stamp.is_file() and stamp.read_text() == digest:
        return False
    call_command("collectstatic", interactive=False, verbosity=0, clear=True, ignore_patterns=list(UNUSED))
    stamp.write_text(digest)
    return True


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in sorted(finder.list(UNUSED), key=lambda found: found[0]):
            status = Path(storage.path(name)).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
