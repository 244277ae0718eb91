"""Did you mean …? What somebody may have wanted to type, or may type next."""

from __future__ import annotations

from collections.abc import Iterable

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
