"""Links of all documents: those inside lead to a file and heading that are there, those outside are well formed.

Sphinx checks those between the pages; the documents of the top folder are read where it never looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@cache
def tokens(document: Path) -> list:
    text = document.read_text(encoding="utf-8")
    included = re.fullmatch(r"```\{include\} (\S+)\n```\n", text)
    if included:
        return tokens(document.parent / included[1])
    return MarkdownIt().enable("table").use(anchors_plugin, max_level=3).parse(text)


def links(document: Path) -> Iterator[str]:
    for token in tokens(document):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield child.attrGet("href") or child.attrGet("src")


def headings(document: Path) -> set[str]:
    return {token.attrGet("id") for token in tokens(document) if token.type == "heading_open"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(document: Path) -> None:
    for link in links(document):
        url = urlsplit(link)
        if url.scheme:
            assert url.scheme in ("https", "mailto"), link
            assert url.scheme == "mailto" or "." in url.netloc, link
            continue
        target = document.parent / url.path if url.path else document
        assert target.exists(), link
        assert not url.fragment or url.fragment in headings(target.resolve()), link
