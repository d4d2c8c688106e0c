"""The documents as pages: each opens, each link within them leads somewhere, and nothing comes from elsewhere."""

import os
import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from django.test import Client

from qflare import documents
from tests.builders import person
from tests.fl.views.answers import text_of
from tests.fl.views.test_doors import InlineFinder
from tests.test_house import ROOT

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer():
    client = Client()
    client.force_login(person("vera", "viewer"))
    return client


class Links(HTMLParser):
    """Collects where a page leads, what it shows, and its anchors."""

    def __init__(self, html):
        super().__init__()
        self.links, self.images, self.ids = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "a":
            self.links.append(named.get("href", ""))
        if tag == "img":
            self.images.append(named["src"])
        if "id" in named:
            self.ids.append(named["id"])


def article(response):
    """Return the links of what was Markdown."""
    return Links(re.search(r"<article.*?</article>", response.content.decode(), re.DOTALL)[0])


def made(text, path="docs/page.md"):
    return documents.render("page", path, text)


# ── the pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_they_are_for_viewers_and_for_everybody_where_the_dashboard_is_public(settings):
    paths = ["/docs/", "/docs/protocol/", "/docs/asyncapi/", "/docs/asyncapi.yaml", "/docs/images/overview.png"]

    assert [Client().get(path).status_code for path in paths] == [302] * len(paths)
    settings.QFLARE_PUBLIC_DASHBOARD = True
    assert [Client().get(path).status_code for path in paths] == [200] * len(paths)


def test_every_document_of_the_checkout_is_listed_and_opens(viewer):
    index = viewer.get("/docs/")

    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        title = re.search(r"^# (.+)$", path.read_text(), re.MULTILINE)[1]
        address = f"/docs/{path.stem.lower()}/"
        assert address in Links(index.content.decode()).links
        page = viewer.get(address)
        assert page.status_code == 200
        assert page.content.decode().count("<h1") == 1
        assert title.replace("'", "&#x27;") in page.content.decode() or title in text_of(page)


def test_every_link_and_picture_within_them_leads_somewhere(viewer):
    pages = {f"/docs/{slug}/": viewer.get(f"/docs/{slug}/") for slug in documents.slugs()}
    anchors = {address: set(Links(page.content.decode()).ids) for address, page in pages.items()}
    followed = 0

    for address, page in pages.items():
        found = article(page)
        for target in found.links + found.images:
            parts = urlsplit(urljoin(f"http://testserver{address}", target))
            if parts.netloc != "testserver":
                assert target in found.links, f"{address} shows {target}"
                continue
            followed += 1
            assert viewer.get(parts.path).status_code == 200, f"{address} leads to {target}"
            if parts.fragment:
                assert parts.fragment in anchors[parts.path], f"{address} leads to {target}"

    assert followed > 20


def test_each_has_its_contents_beside_it(viewer):
    page = viewer.get("/docs/deployment/")

    links = Links(page.content.decode())
    assert "#when-a-part-is-away" in links.links
    assert "when-a-part-is-away" in links.ids
    assert len(links.ids) == len(set(links.ids))


def test_the_description_for_programs_is_shown_and_given_as_a_file(viewer):
    text = (ROOT / "docs/asyncapi.yaml").read_text()

    file = viewer.get("/docs/asyncapi.yaml")

    assert file.content.decode() == text
    assert file.headers["Content-Disposition"] == 'attachment; filename="asyncapi.yaml"'
    assert "asyncapi: 3.0.0" in text_of(viewer.get("/docs/asyncapi/"))


@pytest.mark.parametrize(
    "path",
    ["nothing/", "..%2fREADME/", "images/nothing.png", "images/..%2fprotocol.md", "images/%2e%2e", "images/a%00b"],
)
def test_what_is_no_document_is_not_there(viewer, path):
    assert viewer.get(f"/docs/{path}").status_code == 404


def test_nothing_in_them_breaks_the_policy(viewer):
    for slug in documents.slugs():
        finder = InlineFinder()
        finder.feed(viewer.get(f"/docs/{slug}/").content.decode())
        assert finder.found == [], slug


# ── what is made of Markdown ──────────────────────────────────────────────────────────────────────────────────────────


def test_html_within_markdown_stays_text():
    html = made("# T\n\n<script>alert(1)</script> and [a](javascript:alert(1)) <img src=x onerror=y>").html

    assert "<script" not in html
    assert "<img" not in html
    assert "href" not in html


def test_a_link_to_what_is_not_served_is_text():
    html = made(
        "See [the code](../fl/feed.py), [security](security.md#pages) and [outside](https://example.org/a)."
    ).html

    assert "See the code, " in html
    assert '<a href="/docs/security/#pages">security</a>' in html
    assert '<a href="https://example.org/a" rel="noreferrer">outside</a>' in html


def test_headings_have_anchors_of_their_own_that_no_other_element_has():
    document = made("# T\n\n## State\n\n## A device's *own* `words`\n\n## State\n\n### Deeper\n\n#### Deepest")

    assert [(heading.level, heading.anchor, heading.text) for heading in document.contents] == [
        (2, "state-1", "State"),
        (2, "a-devices-own-words", "A device's own words"),
        (2, "state-2", "State"),
        (3, "deeper", "Deeper"),
    ]
    assert '<h2 id="state-1">' in document.html


def test_tables_and_code_scroll_by_themselves_and_columns_of_numbers_have_no_style():
    html = made("| a | n |\n|---|---:|\n| x | 1 |\n\n    code\n\n```js\nx\n```\n").html

    assert html.count('tabindex="0"') == 3
    assert "style" not in html
    assert '<td class="number">1</td>' in html


def test_the_empty_corner_of_a_table_is_no_heading():
    html = made("| | a |\n|---|---|\n| x | 1 |\n").html

    assert html.count("<th>") == 1
    assert "<td></td>" in html


def test_a_summary_is_the_first_paragraph_in_plain_text():
    assert made("# T\n\n![x](y.png)\n\nWhat **is**\n`so`.\n\nMore.").summary == "What is so."


def test_a_document_is_made_anew_when_its_file_has_changed(settings, tmp_path):
    settings.BASE_DIR = tmp_path
    file = tmp_path / "docs" / "page.md"
    file.parent.mkdir()
    file.write_text("# Before")
    first = documents.read("page")
    again = documents.read("page")

    file.write_text("# After")
    os.utime(file, ns=(1, 1))

    assert again is first
    assert documents.read("page").title == "After"


def test_a_checkout_without_documents_has_none(settings, tmp_path, viewer):
    settings.BASE_DIR = tmp_path

    assert documents.slugs() == {}
    assert viewer.get("/docs/").status_code == 200
    assert viewer.get("/docs/protocol/").status_code == viewer.get("/docs/asyncapi.yaml").status_code == 404
