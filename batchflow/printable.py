"""The one way in which text that somebody else wrote, a record or a file name, gets to a terminal."""

from __future__ import annotations


def printable(text: str | None) -> str:
    """Return text without what a terminal would obey, each such character written as Python writes it.

    That is what `str.isprintable` says: control characters, the ones that turn the direction of
    writing around, line ends, and half surrogate pairs. What was made so stays as it is, made so again.
    """
    text = text or ""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_json(text: str) -> str:
    """Return one line of JSON with such characters, which stand inside its strings, as JSON escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def ascii_json(text: str) -> str:
    """Return one line of JSON with all letters beyond ASCII as JSON escapes."""
    return "".join(letter if letter.isascii() else _escape(letter) for letter in text)


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else _escape(letter)


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
