"""How the documents are built: ``make docs`` makes an error of every warning, and so of every broken reference."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pydoc import locate
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import batchflow
from batchflow.cli.main import build_parser

project = "batchflow"
author = "the batchflow contributors"
release = batchflow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"batchflow {release}"
html_show_copyright = False
html_copy_source = False
python_maximum_signature_line_length = 80  # beyond that a line for each parameter

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "py:obj"  # a name in single backticks is a reference, as in NumPy's docstrings
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False


def setup(app: Any) -> None:
    """Add what is special here to Sphinx."""
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", _begin_with_text, priority=400)  # before napoleon
    app.connect("missing-reference", _resolve)


class Commands(SphinxDirective):
    """The help of each command, as the terminal shows it."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command."""
        os.environ["COLUMNS"] = "84"
        return [self._section(parser) for parser in _commands(build_parser())]

    def _section(self, parser: argparse.ArgumentParser) -> nodes.Node:
        told = nodes.literal_block("", parser.format_help(), language="text")
        section = nodes.section("", nodes.title("", parser.prog), told, names=[parser.prog])
        self.state.document.note_implicit_target(section)
        return section


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of a parser's commands, and of theirs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from _commands(command)


def _begin_with_text(_app: Any, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking the words before a colon for the type of an attribute: ours have annotations."""
    if what in ("attribute", "property", "data"):
        lines.insert(0, "\N{ZERO WIDTH SPACE}")


def _resolve(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Resolve a short name as the one documented object that ends so.

    What stays text: annotations, and names of other packages, which must be there, but whose addresses nobody
    knows without a network.
    """
    target = node.get("reftarget", "")
    domain = env.get_domain("py")
    found = [name for name in domain.objects if name.endswith(f".{target}")]
    if len(found) == 1:
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, shown)
    annotation = node.get("reftype") == "class"
    elsewhere = node.get("refdomain") == "py" and not target.startswith("batchflow") and locate(target) is not None
    return shown if annotation or elsewhere else None
