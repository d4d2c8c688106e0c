"""`manage.py asyncapi`: writes docs/asyncapi.yaml anew; a test fails while it differs from the structs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from realtime.asyncapi import document

HEAD = "# Made by `manage.py asyncapi` from edge/protocol/; do not edit.\n"


class Command(BaseCommand):
    """Writes the document, or prints it."""

    help = "Write docs/asyncapi.yaml from the structs of edge/protocol/."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--print", action="store_true", dest="prints", help="print it instead")

    def handle(self, *_: Any, prints: bool, **__: Any) -> None:
        text = as_yaml()
        if prints:
            self.stdout.write(text)
            return
        path = Path(settings.BASE_DIR) / "docs" / "asyncapi.yaml"
        path.write_text(text, encoding="utf-8")
        self.stderr.write(f"wrote {path}")


def as_yaml() -> str:
    """Return the document as YAML, without anchors.

    Raises:
        CommandError: PyYAML, one of the development requirements, is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise CommandError("PyYAML is missing: pip install -r requirements-dev.txt") from error

    class Plain(yaml.SafeDumper):
        """Writes what occurs twice twice: readers need not follow anchors."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return HEAD + yaml.dump(document(), Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
