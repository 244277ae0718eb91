"""Text for people: plurals, suggestions, and untrusted text made safe for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence


def printable(text: str | None) -> str:
    """Escape the characters that a terminal would interpret, in the notation of Python.

    These are the characters that `str.isprintable` rejects: control characters, bidirectional overrides, line ends
    and lone surrogates. Escaped text is unchanged if escaped again.
    """
    text = text or ""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_json(text: str) -> str:
    """Replace such characters inside the strings of a line of JSON by JSON escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def ascii_json(text: str) -> str:
    """Replace all non-ASCII characters in a line of JSON by JSON escapes."""
    return "".join(letter if letter.isascii() else _escape(letter) for letter in text)


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else _escape(letter)


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


_CLOSE = 0.6
"""Minimum similarity of two words, from 0 to 1; the default of difflib, which Python uses for names too."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the known word most similar to an unknown one, if any.

    >>> did_you_mean("colum", ["row", "column"])
    "; did you mean 'column'?"
    """
    from difflib import get_close_matches  # only needed after a typo

    folded = {one.casefold(): one for one in known}
    close = get_close_matches(word.casefold(), folded, 1, _CLOSE)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def next_version(version: str | None) -> str:
    """Return the next version label for a changed function."""
    if not version:
        return "2"
    return str(int(version) + 1) if version.isdecimal() else f"{version}-2"


def command(*words: str) -> str:
    """Return a batchflow command as typed into a shell.

    A job on a cluster was submitted, so a command that starts a job is submitted too.
    """
    import shlex  # only needed to show a command

    submits = "BATCHFLOW_JOB" in os.environ and words[0] in ("run", "flow", "retry", "scale")
    return shlex.join(["batchflow", *(["submit"] if submits else []), *words])


def operand(path: str) -> str:
    """Return a path as an argument that cannot be mistaken for an option.

    >>> operand("-out/")
    './-out/'
    """
    return f"./{path}" if path.startswith("-") else path


def with_options(words: Sequence[str], *options: str) -> list[str]:
    """Return the words of a command with more options, inserted before any ``--``."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *options, *words[end:]]


def without_option(words: Sequence[str], option: str, *, has_value: bool = True) -> list[str]:
    """Return the words of a command without an option and its value.

    Parameters
    ----------
    option
        Shortest abbreviation of the option.
    """
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith(option):
            skip = has_value and "=" not in word
        else:
            kept.append(word)
    return kept


def counted(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "chunk"), counted(2000, "retry")
    ('1 chunk', '2,000 retries')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def one(noun: str) -> str:
    """Return a noun with its article.

    >>> one("int"), one("Table")
    ('an int', 'a Table')
    """
    return f"an {noun}" if noun[:1].lower() in "aeio" else f"a {noun}"
