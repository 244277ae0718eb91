"""A run as one HTML file: what is told of it, as escaped JSON, between a style sheet and a script that draw it.

The file needs no network, and its content security policy allows none. Whatever a user wrote (names, messages,
payloads) becomes text nodes only.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MARKUP = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def page_of(told: Mapping[str, Any]) -> str:
    """Return what is told of a job or a flow as a page."""
    graph = told.get("graph", "")
    values = {name: value for name, value in told.items() if name != "graph"}
    name = told["plan"]["function"] if "plan" in told else told["flow"]
    script = _part("page.js")
    parts = {
        "TITLE": f"batchflow: {name}".translate(_MARKUP).encode("ascii", "xmlcharrefreplace").decode(),
        "POLICY": f"{_POLICY}; script-src 'sha256-{_digest(script)}'",
        "STYLE": _part("page.css"),
        "GRAPH": graph,
        "DATA": embedded(values),
        "SCRIPT": script,
    }
    first, *rest = _part("page.html").split("{{")
    return first + "".join(_filled(piece, parts) for piece in rest)


def _filled(piece: str, parts: Mapping[str, str]) -> str:
    name, _, text = piece.partition("}}")
    return parts[name] + text


def embedded(values: Any) -> str:
    """Return values as JSON that may stand in a script element: ASCII, without anything that could end it."""
    return json.dumps(values, default=str, separators=(",", ":")).translate(_ESCAPES)


@cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _digest(text: str) -> str:
    return binascii.b2a_base64(hashlib.sha256(text.encode()).digest(), newline=False).decode()
