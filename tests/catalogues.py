"""Catalogues of translations, as files in the format PO have them."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CATALOGUES = sorted((ROOT / "locale").glob("*/LC_MESSAGES/*.po"))


@dataclass(frozen=True)
class Entry:
    """A text of a catalogue: where it stands, in English, in English for many, and in its language."""

    context: str
    one: str
    many: str
    translated: tuple[str, ...]
    flags: str

    @property
    def key(self):
        return self.context, self.one, self.many


def entries(text):
    """Read a catalogue in the format PO, its head aside; what is commented out (`#~`) is no entry."""
    for block in text.split("\n\n"):
        fields = {"msgctxt": "", "msgid": "", "msgid_plural": ""}
        flags, field = "", ""
        for line in block.splitlines():
            if line.startswith("#"):
                flags += line[2:] if line.startswith("#,") else ""
            elif match := re.match(r'(msg\w+(?:\[\d+\])?) (".*")$', line):
                field = match[1]
                fields[field] = ast.literal_eval(match[2])
            elif line:
                fields[field] += ast.literal_eval(line)
        translated = tuple(value for name, value in fields.items() if name.startswith("msgstr"))
        if fields["msgid"]:
            yield Entry(fields["msgctxt"], fields["msgid"], fields["msgid_plural"], translated, flags)
