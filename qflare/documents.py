"""The documents of the checkout as pages: Markdown made HTML here, so that they can be read where there is no internet.

Links among them lead to their pages, pictures come from this server, and whatever is not served is no link. HTML within
Markdown stays text.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from django.conf import settings
from django.urls import reverse
from markdown_it import MarkdownIt
from markdown_it.token import Token

OTHERS = {"readme": "README.md", "benchmarks": "benchmarks/README.md"}
"""Documents that are not in docs/, by the name that their page has."""
ASYNCAPI = "docs/asyncapi.yaml"
IMAGES = "docs/images"
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
ELSEWHERE = ("http://", "https://", "mailto:", "/")
TAKEN_IDS = ("main", "state", "words", "main-script", "notice-template", "on-this-page", "all-documents")
"""What other elements of a page are called, so that no heading is."""

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass(frozen=True)
class Heading:
    """A heading within a document: its depth from 2 on, its anchor and its text."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Document:
    """A document as its page shows it.

    Attributes:
        slug: its name in addresses.
        title: its first heading.
        summary: its first paragraph, as plain text.
        html: all of it; made here from text, so that it holds no markup but ours.
        contents: its headings below the first, as far as depth 3.
    """

    slug: str
    title: str
    summary: str
    html: str
    contents: list[Heading]


_known: dict[Path, tuple[int, Document]] = {}


def slugs() -> dict[str, str]:
    """Return the documents that there are: name of the page → path within the checkout."""
    root = Path(settings.BASE_DIR)
    found = {slug: path for slug, path in OTHERS.items() if (root / path).is_file()}
    return found | {path.stem: f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))}


def read(slug: str) -> Document | None:
    """Return a document, made anew where its file has changed; None where there is none."""
    path = slugs().get(slug)
    if path is None:
        return None
    file = Path(settings.BASE_DIR) / path
    changed = file.stat().st_mtime_ns
    known = _known.get(file)
    if known is None or known[0] != changed:
        known = _known[file] = (changed, render(slug, path, file.read_text(encoding="utf-8")))
    return known[1]


def image(name: str) -> tuple[bytes, str] | None:
    """Return the bytes of a picture of the documents and their media type; None where there is none."""
    folder = Path(settings.BASE_DIR) / IMAGES
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    kind = IMAGE_TYPES.get(Path(name).suffix)
    return ((folder / name).read_bytes(), kind) if name in names and kind else None


def render(slug: str, path: str, text: str) -> Document:
    """Make the page of a document that lies at this path of the checkout."""
    tokens = _markdown.parse(text)
    headings = list(_named_headings(tokens))
    _leave_corners_empty(tokens)
    for token in tokens:
        _keep_to_the_policy(token)
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _address(str(child.attrGet("src")), path) or "")
        _lead_links(token.children or (), path)
    titles = [heading.text for heading in headings if heading.level == 1]
    return Document(
        slug=slug,
        title=titles[0] if titles else slug,
        summary=next(_paragraphs(tokens), ""),
        html=_markdown.renderer.render(list(_within_reach(tokens)), _markdown.options, {}),
        contents=[heading for heading in headings if heading.level in (2, 3)],
    )


def _named_headings(tokens: Sequence[Token]) -> Iterator[Heading]:
    """Give each heading the anchor that links have for it: its words in small letters, with hyphens between them."""
    taken = set(TAKEN_IDS)
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = _plain(inline)
        anchor = base = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text.lower()))
        number = 0
        while anchor in taken:
            number += 1
            anchor = f"{base}-{number}"
        taken.add(anchor)
        token.attrSet("id", anchor)
        yield Heading(int(token.tag[1:]), anchor, text)


def _paragraphs(tokens: Sequence[Token]) -> Iterator[str]:
    for token, inline in pairwise(tokens):
        if token.type == "paragraph_open" and token.level == 0 and (text := _plain(inline)):
            yield text


def _plain(inline: Token) -> str:
    """Return the text of a line of Markdown, without its pictures."""
    parts = {"text": None, "code_inline": None, "softbreak": " ", "hardbreak": " "}
    return "".join(parts[one.type] or one.content for one in inline.children or () if one.type in parts).strip()


def _lead_links(tokens: Sequence[Token], path: str) -> None:
    """Lead the links of a line to where they lead here; those that lead nowhere become text."""
    hides = False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href") or "")
            address = _address(target, path)
            hides = token.hidden = address is None
            token.attrSet("href", address or "")
            if target.startswith("http"):
                token.attrSet("rel", "noreferrer")
        elif token.type == "link_close":
            token.hidden = hides


def _address(target: str, path: str) -> str | None:
    """Return where a link of the document at `path` leads on this server; None where there is nothing."""
    if target.startswith((*ELSEWHERE, "#")):
        return target
    file, _, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
    pages = {page: slug for slug, page in slugs().items()}
    if found == ASYNCAPI:
        return reverse("asyncapi")
    if found in pages:
        return reverse("document", args=[pages[found]]) + (f"#{anchor}" if anchor else "")
    if posixpath.dirname(found) == IMAGES:
        return reverse("document-image", args=[posixpath.basename(found)])
    return None


def _keep_to_the_policy(token: Token) -> None:
    """Say by a class what Markdown's tables say by a style, which pages may not have."""
    style = token.attrs.pop("style", None)
    if style == "text-align:right":
        token.attrJoin("class", "number")


def _leave_corners_empty(tokens: Sequence[Token]) -> None:
    """Make a heading of a column that says nothing, as in a table's corner, a cell: nobody can be told of it."""
    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type == "th_open" and not inline.content:
            opening.tag = closing.tag = "td"


def _within_reach(tokens: Sequence[Token]) -> Iterator[Token]:
    """Let what may be wider than a page scroll by itself, with a name, and by the keyboard too."""
    for token in tokens:
        if token.type == "table_open":
            yield _markup('<div class="scroll" tabindex="0" role="group" aria-label="Table">')
            yield token
        elif token.type == "table_close":
            yield token
            yield _markup("</div>")
        elif token.type in ("fence", "code_block"):
            yield _markup('<div class="scroll code-block" tabindex="0" role="group" aria-label="Code">')
            yield token
            yield _markup("</div>")
        else:
            yield token


def _markup(html: str) -> Token:
    return Token("html_block", "", 0, content=html)
