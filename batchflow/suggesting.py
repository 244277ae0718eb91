"""Did you mean …? What somebody may have wanted to type, or may type next."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

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
