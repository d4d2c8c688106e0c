"""The documents say what is so, where a test can tell."""

import re
from pathlib import Path

from fl.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_setting_is_documented_and_every_documented_setting_exists():
    code = (ROOT / "qflare" / "settings.py").read_text()
    read = set(re.findall(r'env_(?:str|bool|number|list)\(\s*"([A-Z_]+)"', code))
    table = (ROOT / "docs" / "deployment.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z_]+)`", table, flags=re.MULTILINE))

    assert read - documented == {"QFLARE_DEBUG"}
    assert documented - read == {"QFLARE_TASKS"}


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_strategy_is_in_the_table():
    table = (ROOT / "docs" / "strategies.md").read_text()

    assert set(re.findall(r"^\| `([a-z]+)` \|", table, flags=re.MULTILINE)) == set(STRATEGIES)


def test_the_modules_on_the_map_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for section in ("edge", "fl", "realtime"):
        for name in re.findall(rf"`({section}/[\w/]+\.py)", text):
            assert (ROOT / name).exists(), name
