"""Text for people: plurals, suggestions, and other people's text made safe for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence


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


_CLOSE = 0.6
"""Of 1, how alike two words must be; difflib's own measure, and what Python takes for names."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that names the known word most like one that is not known, if one is.

    >>> did_you_mean("colum", ["row", "column"])
    "; did you mean 'column'?"
    """
    from difflib import get_close_matches  # only where somebody mistyped

    folded = {one.casefold(): one for one in known}
    close = get_close_matches(word.casefold(), folded, 1, _CLOSE)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def next_version(version: str | None) -> str:
    """Return a name for a function once it is another one."""
    if not version:
        return "2"
    return str(int(version) + 1) if version.isdecimal() else f"{version}-2"


def command(*words: str) -> str:
    """Return a command of batchflow as it is typed into a shell.

    A job of a cluster was submitted, so a command that starts a job is submitted too.
    """
    import shlex  # only for who tells of a command

    submits = "BATCHFLOW_JOB" in os.environ and words[0] in ("run", "flow", "retry", "scale")
    return shlex.join(["batchflow", *(["submit"] if submits else []), *words])


def operand(path: str) -> str:
    """Return a path as an argument that is not taken for an option.

    >>> operand("-out/")
    './-out/'
    """
    return f"./{path}" if path.startswith("-") else path


def with_options(words: Sequence[str], *options: str) -> list[str]:
    """Return the words of a command with more options, which may not follow ``--``."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *options, *words[end:]]


def without_option(words: Sequence[str], option: str, *, has_value: bool = True) -> list[str]:
    """Return the words of a command without an option and its value.

    Parameters
    ----------
    option
        Its shortest abbreviation.
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
    """Return how many of something there are.

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
